"""The stores: one file or package each, named after its URL scheme."""
