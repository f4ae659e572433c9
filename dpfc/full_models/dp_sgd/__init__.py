"""Clipped sums of per-sample gradients, and the checks that make them safe."""
