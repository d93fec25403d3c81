"""The domain: pure rules, without I/O, clock, event loop, logging or randomness."""
