"""Run cells as a notebook does, in processes that end with everything they started."""
