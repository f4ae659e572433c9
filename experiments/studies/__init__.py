"""Studies: configuration, plan, runs, store, table."""
