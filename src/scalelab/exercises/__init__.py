"""Exercise sets: their sources, the notebooks made from them, and the answers found in a notebook."""
