"""Descriptors of tracklets: embedding, ranking, search, clustering, metrics."""
