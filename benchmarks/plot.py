"""The plot of the report: the server's cost per job against what grows, as an SVG of its own. No plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 300, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 34, 42

Points = Sequence[tuple[float, float]]


def svg(curves: Mapping[str, Points]) -> str:
    """One panel for each curve, side by side: logarithmic to the right, microseconds upwards from zero."""
    top = _round_up(max(y for points in curves.values() for _, y in points))
    panels = [_panel(number * WIDTH, name, points, top) for number, (name, points) in enumerate(curves.items())]
    width = WIDTH * len(curves)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" '
        'font-family="sans-serif" font-size="11" fill="#444">\n'
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(offset: int, name: str, points: Points, top: float) -> str:
    low, high = math.log10(points[0][0]), math.log10(points[-1][0])
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return offset + LEFT + (math.log10(value) - low) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    lines = [f'<text x="{offset + LEFT}" y="18" font-size="13">µs of the server per job</text>']
    for step in range(5):
        value = top * step / 4
        lines.append(
            f'<line x1="{offset + LEFT}" x2="{offset + WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="#ddd"/><text x="{offset + LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for at, _ in points:
        lines.append(f'<text x="{x(at):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(at)}</text>')
    middle = offset + (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{name}</text>')
    path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
    lines.append(f'<polyline points="{path}" fill="none" stroke="#2563eb" stroke-width="2"/>')
    lines += [f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="3" fill="#2563eb"/>' for at, value in points]
    return "\n".join(lines)


def _short(value: float) -> str:
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{sign}"
    return f"{value:g}"


def _round_up(value: float) -> float:
    """To a number that divides into four without many digits."""
    step: float = 10.0 ** math.floor(math.log10(value))
    return next(step * factor for factor in (1, 2, 4, 8, 10, 20) if step * factor >= value)
