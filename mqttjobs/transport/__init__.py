"""Messages: the interface of transports, and what every transport needs."""
