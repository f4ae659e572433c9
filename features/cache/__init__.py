"""Feature caches on disk."""
