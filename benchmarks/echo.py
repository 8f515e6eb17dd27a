"""The handler of every measurement: it gives back what it gets."""

from hecaton.serverless import start

if __name__ == "__main__":
    start(lambda data: data.input)
