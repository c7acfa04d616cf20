"""Charts as SVG text: lines over common axes, means with their intervals; scaled by the page, crisp at any width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40


@dataclass(frozen=True)
class Line:
    """One line: points (x, y) in order; `style` is a CSS class."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "line-a"


@dataclass(frozen=True)
class Span:
    """A mean with its interval; `low` and `high` are None where there is none."""

    name: str
    mean: float
    low: float | None
    high: float | None


ROW_HEIGHT, NAME_WIDTH = 30, 210


def span_chart(spans: Sequence[Span], *, x_name: str, title: str) -> str:
    """An SVG of means as dots and their intervals as bars, one below the other over a common axis."""
    values = [value for span in spans for value in (span.mean, span.low, span.high) if value is not None]
    marks = ticks(min(values), max(values), 6)
    height = TOP + ROW_HEIGHT * len(spans) + BOTTOM

    def across(value: float) -> float:
        return NAME_WIDTH + (value - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - NAME_WIDTH - RIGHT)

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" class="chart">']
    for mark in marks:
        x = across(mark)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 18}" class="tick-x">{_short(mark)}</text>')
    for row, span in enumerate(spans):
        parts += _span(span, across, TOP + ROW_HEIGHT * (row + 0.5))
    parts.append(f'<text x="{(NAME_WIDTH + WIDTH) / 2}" y="{height - 4}" class="axis-name">{escape(x_name)}</text>')
    return "\n".join([*parts, "</svg>"])


def _span(span: Span, across: Callable[[float], float], y: float) -> list[str]:
    told = f"{span.name}: {span.mean:.4f}"
    bar = []
    if span.low is not None and span.high is not None:
        told += f" ({span.low:.4f} to {span.high:.4f})"
        bar = [f'<line x1="{across(span.low):.1f}" x2="{across(span.high):.1f}" y1="{y}" y2="{y}" class="span"/>']
    name = span.name if len(span.name) <= 32 else span.name[:31] + "…"
    return [
        f'<text x="{NAME_WIDTH - 10}" y="{y + 4}" class="tick-y">{escape(name)}</text>',
        *bar,
        f'<circle cx="{across(span.mean):.1f}" cy="{y}" r="5" class="mean"><title>{escape(told)}</title></circle>',
    ]


def line_chart(lines: Sequence[Line], *, x_name: str, y_name: str, title: str) -> str:
    """An SVG of the lines over common axes; empty text without points."""
    points = [point for line in lines for point in line.points if all(math.isfinite(v) for v in point)]
    if len(points) < 2:
        return ""
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points), 6)
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points), 5)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" class="chart">',
        *(_horizontal(y, *place(x_ticks[0], y)) for y in y_ticks),
        *(_mark(x, place(x, y_ticks[0])[0]) for x in x_ticks),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" class="axis-name">{escape(x_name)}</text>',
        f'<text transform="translate(12 {HEIGHT / 2 - 10}) rotate(-90)" class="axis-name">{escape(y_name)}</text>',
    ]
    for line in lines:
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        parts.append(f'<polyline points="{drawn}" class="{line.style}"><title>{escape(line.name)}</title></polyline>')
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that enclose [low, high], about `count` of them, at least two."""
    span = high - low if high - low > 1e-12 * max(1.0, abs(high)) else max(1.0, abs(high))
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _horizontal(value: float, x: float, y: float) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" class="tick-y">{_short(value)}</text>'
    )


def _mark(value: float, x: float) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" class="tick-x">{_short(value)}</text>'


def _short(value: float) -> str:
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:g}"
