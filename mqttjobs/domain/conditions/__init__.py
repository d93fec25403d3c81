"""The kinds of condition: one file for each, found by the registry."""
