"""A student's workspace: made, updated without losing work, checked, and handed in."""
