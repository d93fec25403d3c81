"""The rules without a broker and without effects."""
