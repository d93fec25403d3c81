"""The command line: each command parses its options, calls the code, and prints the result."""
