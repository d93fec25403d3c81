"""The transports: one file or package each, found by the URL schemes that it names."""
