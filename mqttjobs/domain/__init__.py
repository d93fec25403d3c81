"""The ground floor: pure rules, without I/O, clock, event loop, logging or randomness."""
