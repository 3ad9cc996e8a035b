"""Rendered people: bodies, walks, cameras, data sets and videos with their truth."""
