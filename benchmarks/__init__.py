"""What PyScope costs: `python -m benchmarks` prints every figure with its interval and verdict."""
