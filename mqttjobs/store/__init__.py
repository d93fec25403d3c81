"""Durable records: one protocol, and one file for each way of keeping it."""
