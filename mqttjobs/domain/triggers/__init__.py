"""The keys and kinds of triggers: one file each, found by the registry."""
