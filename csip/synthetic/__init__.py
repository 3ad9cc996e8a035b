"""Rendered people: bodies, walks, cameras, data sets and videos with ground truth."""
