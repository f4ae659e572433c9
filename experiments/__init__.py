"""What a person runs: the `dpfc` command, the demo, plots and benchmarks."""
