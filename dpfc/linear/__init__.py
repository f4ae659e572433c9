"""Private solvers for the last layer."""
