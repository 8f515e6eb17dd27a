"""What `/metrics` says, in Prometheus' format, on a port of its own.

- `collector`: What is so now and what has happened, as Prometheus reads it.
- `page`: The one page of the metrics' own port.
- `statistics`: What has happened since the start: counted where it is known anyway, in memory.
"""
