"""Private search for hyperparameters."""
