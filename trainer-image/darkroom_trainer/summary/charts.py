"""Line charts and stacked bars as SVG: no script, no font and no server is needed to look at them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#a16207")
_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 34
_MOST_POINTS = 600  # a wider line has no room in the picture
_TICKS = 5


@dataclass(frozen=True)
class Curve:
    """name: as in the legend; points: (x, y) by x; points that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Axis:
    """From data to pixels, between two ends."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def line_chart(curves: Sequence[Curve], *, x: str, y: str) -> str:
    """One SVG with axes, a legend and a line for each curve; x, y: what the axes measure."""
    finite = [Curve(c.name, [p for p in c.points if math.isfinite(p[0]) and math.isfinite(p[1])]) for c in curves]
    every = [point for curve in finite for point in curve.points]
    if not every:
        return ""
    across = _Axis(*_span([p[0] for p in every]), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(*_span([p[1] for p in every]), _HEIGHT - _BOTTOM, _TOP)
    lines = [
        f'<polyline fill="none" stroke="{COLORS[number % len(COLORS)]}" stroke-width="1.6" points="{_points(curve, across, up)}">'
        f"<title>{escape(curve.name)}</title></polyline>"
        for number, curve in enumerate(finite)
    ]
    parts = [*_grid(across, up, x, y), *lines, *_legend([curve.name for curve in finite])]
    return _svg(_WIDTH, _HEIGHT, f"{y} by {x}", parts)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _points(curve: Curve, across: _Axis, up: _Axis) -> str:
    step = max(1, math.ceil(len(curve.points) / _MOST_POINTS))
    shown = [*curve.points[::step], *curve.points[-1:]]
    return " ".join(f"{across.place(left)},{up.place(value)}" for left, value in shown)


def _grid(across: _Axis, up: _Axis, x: str, y: str) -> list[str]:
    parts = []
    for tick in ticks(up.low, up.high):
        height = up.place(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height}" y2="{height}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4}" text-anchor="end">{_number(tick)}</text>')
    for tick in ticks(across.low, across.high):
        place = across.place(tick)
        parts.append(f'<text x="{place}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_number(tick)}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(x)}</text>')
    parts.append(f'<text x="4" y="{_HEIGHT - 4}">{escape(y)}</text>')
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    parts, left = [], _LEFT + 8
    for number, name in enumerate(names):
        parts.append(f'<rect x="{left}" y="{_TOP}" width="10" height="10" fill="{COLORS[number % len(COLORS)]}"/>')
        parts.append(f'<text x="{left + 14}" y="{_TOP + 9}">{escape(name)}</text>')
        left += 26 + 7 * len(name)
    return parts


def stacked_bar(shares: Mapping[str, float]) -> str:
    """One bar cut by the values, the largest first; their names stand in the legend beside it."""
    total = sum(shares.values())
    if total <= 0:
        return ""
    parts, left = [], 0.0
    for number, (name, value) in enumerate(shares.items()):
        width = round(_WIDTH * value / total, 1)
        color = COLORS[number % len(COLORS)]
        parts.append(
            f'<rect x="{round(left, 1)}" y="0" width="{width}" height="28" fill="{color}"><title>{escape(name)}</title></rect>'
        )
        left += width
    return _svg(_WIDTH, 28, "shares of time", parts)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends, about five of them: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:.6g}"


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{body}</svg>'
