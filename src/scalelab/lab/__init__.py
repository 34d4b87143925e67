"""JupyterLab's server, its contents and its layout, for authors and for students."""
