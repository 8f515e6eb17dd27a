"""One module per rival. Each is a program of its own, run by `benchmarks.versus` in an environment made for it."""
