"""Find submissions in the layouts of learning systems, and read the roster of a class."""
