"""Tests of the real program over a real broker."""
