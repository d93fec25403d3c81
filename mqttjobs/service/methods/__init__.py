"""The request methods: one file for each noun, each method a function with a typed model of its parameters."""
