"""Shipped doubles: what Hecaton's own tests and its users' tests stand on.

- `cluster`: A server and workers as real processes on this machine, in a folder of their own: for tests, benchmarks and
  the demo.
- `runtime`: A container runtime that does as it is told: hangs, refuses, crashes, lies.
"""
