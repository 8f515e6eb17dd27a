"""A real Docker engine for the tests, with images built on the spot: no test pulls anything from outside.

The fixtures live in `fixtures.py`; `python -m tests.engine up|down|status|images` does the same by hand."""
