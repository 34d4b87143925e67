"""Find, generate, check, build and serve the parts of the course."""
