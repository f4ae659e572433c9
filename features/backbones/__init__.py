"""Frozen public networks."""
