"""Tracklets on disk, and the clips made of them."""
