"""Read and write notebooks and other files: strangers' files safely, our own atomically."""
