"""Private accuracy, intervals and counts."""
