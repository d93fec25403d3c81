"""The transports: one file or package each, found by their URL schemes."""
