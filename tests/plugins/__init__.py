"""Plugins: the examples of the documentation, as one file and from installed packages, and what is wrong with some."""
