"""The one way to private rows: rows, row map, queries, sums, noise, and what pays for it."""
