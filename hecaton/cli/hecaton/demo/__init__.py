"""`hecaton demo`: the whole of Hecaton on this machine in half a minute.

- `cluster`: A server and a worker as child processes in a temporary folder, for `hecaton demo`.
- `demo`: `hecaton demo`: the whole of Hecaton on this machine in half a minute; needs nothing, leaves nothing.
- `engine`: Whether a Docker engine answers here, with a Python image; if not, why, and what to type.
- `handler`: The handler of `hecaton demo`: one row of the Mandelbrot set per job.
"""
