"""What a person runs: the `dpfc` command, studies, the demo; benchmarks, in a clone."""
