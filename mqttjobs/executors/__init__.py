"""Running operations: the interface of operation types, and what every type needs."""
