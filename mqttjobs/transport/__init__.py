"""Messages: one protocol, and one file for each way of carrying them."""
