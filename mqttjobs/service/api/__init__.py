"""Requests: who asks, what is asked, and exactly one answer."""
