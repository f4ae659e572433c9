"""Privacy loss distributions, Rényi divergences, root finding."""
