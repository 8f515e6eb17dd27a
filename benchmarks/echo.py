"""The handler of every measurement: it gives back what it gets. Asked "when", it tells when it was called."""

import time

from hecaton.serverless import ServerLessInput, start


def echo(data: ServerLessInput) -> object:
    if data.path is not None:
        return data.path  # a large payload goes back as the file that it came as
    return time.monotonic_ns() if data.input == "when" else data.input


if __name__ == "__main__":
    start(echo)
