"""Build, execute, check and release the course."""
