"""Embeddings that others made."""
