"""Use cases and lifecycle: what the service does with messages, jobs and requests."""
