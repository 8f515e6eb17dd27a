"""The handler of `hecaton demo`: one row of the Mandelbrot set per job. Runs in the worker's container, Python 3.8+."""

from __future__ import annotations

from hecaton.serverless import ServerLessInput, progress, start

WIDTH = 76
HEIGHT = 32
DEPTH = 30_000
SHADES = " .:-=+*#%"


def escape_time(c: complex) -> int:
    z = 0j
    for step in range(DEPTH):
        z = z * z + c
        if abs(z) > 2:
            return step
    return DEPTH


def shade(steps: int) -> str:
    return "@" if steps == DEPTH else SHADES[min(steps, 40) * (len(SHADES) - 1) // 40]


def draw_row(data: ServerLessInput) -> dict[str, object]:
    row = data.input["row"]
    y = 1.25 - 2.5 * row / (HEIGHT - 1)
    print(f"row {row}: imaginary part {y:.3f}")
    text = ""
    for column in range(WIDTH):
        text += shade(escape_time(complex(-2.1 + 3.0 * column / (WIDTH - 1), y)))
        if column % 19 == 18:
            progress(len(text) / WIDTH)
    return {"row": row, "text": text}


if __name__ == "__main__":
    start(draw_row)
