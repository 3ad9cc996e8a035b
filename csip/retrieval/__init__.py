"""Descriptors of tracklets, and what is done with them: ranking, search, clustering, metrics."""
