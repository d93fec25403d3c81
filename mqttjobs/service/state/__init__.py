"""What the engine knows: stored values and trigger states in memory, and the transaction that changes them."""
