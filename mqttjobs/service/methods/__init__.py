"""What can be asked: one file for each noun, each method a function with a typed parameter model."""
