"""Measures Hecaton and what people would use instead, side by side: `make bench`, or `python -m benchmarks`."""
