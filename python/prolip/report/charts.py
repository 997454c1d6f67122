"""Small SVG charts. The page's style sheet colours them; marks and dashes also differ, for readers who see no colour.

They are as wide as a phone's screen (360 units), so that text keeps its size there and several fit side by side on a
laptop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from markupsafe import escape

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 360.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 18.0, 10.0, 36.0


class Line(NamedTuple):
    """Its position among the lines determines its colour, dash and mark."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    radii: Sequence[Sequence[float]] = ()
    """Of ellipses around the points along both axes, in their units; drawn in place of the line."""


class Spread(NamedTuple):
    """A row of an interval chart."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    baseline: float = math.nan
    """To compare with, drawn as a ring."""


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """That cover [low, high] in about `count` steps of 1, 2 or 5 times a power of ten."""
    if high - low <= 1e-300 + 1e-9 * max(abs(low), abs(high)):  # too narrow for floats between them
        margin = abs(low) * 0.1 if abs(low) > 1e-300 else 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_label(value: float) -> str:
    """Thousands and millions are abbreviated."""
    for factor, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= max(factor, 1e4):
            return f"{value / factor:g}{suffix}".replace("-", "−")
    return f"{round(value, 12):g}".replace("-", "−")


def line_chart(
    title: str,
    description: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_scale: Literal["linear", "from zero", "share"] = "linear",
    percent: bool = False,
    marks: bool = False,
) -> str:
    """Draw lines over a common axis, with `marks` at every point. The scale "share" always covers 0 to 1.

    NaN is left out. Returns "" if no point is left.
    """
    drawn = [[(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)] for line in lines]
    xs, values = [x for line in drawn for x, _ in line], [y for line in drawn for _, y in line]
    if not xs:
        return ""
    values += {"from zero": [0.0], "share": [0.0, 1.0]}.get(y_scale, [])
    height, ticks = 210.0, nice_ticks(min(values), max(values), 4)
    y_axis = _axis(ticks[0], ticks[-1], height - BOTTOM, TOP)
    x_axis = _axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, WIDTH - RIGHT)
    body = ""
    for tick in ticks:
        label = f"{tick_label(100 * tick)}\u202f%" if percent else tick_label(tick)
        body += (
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_axis(tick):.1f}" y2="{y_axis(tick):.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y_axis(tick) + 4:.1f}" text-anchor="end">{label}</text>'
        )
    body += _x_labels([t for t in nice_ticks(min(xs), max(xs), 5) if min(xs) <= t <= max(xs)], x_axis, height, x_label)
    for place, (line, points) in enumerate(zip(lines, drawn, strict=True)):
        for (x, y), (wide, high) in zip(points, line.radii, strict=bool(line.radii)):
            radii = f'rx="{x_axis(x + wide) - x_axis(x):.1f}" ry="{y_axis(y) - y_axis(y + high):.1f}"'
            body += f'<ellipse class="line thin s{place}" cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" {radii}/>'
        if points and not line.radii:
            path = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in _thinned(points))
            body += f'<polyline class="line s{place}" points="{path}"/>'
        if marks:
            body += "".join(_mark(place, x_axis(x), y_axis(y)) for x, y in points)
    return _svg(title, description, height, body) + _legend([line.name for line in lines])


def interval_chart(
    title: str, description: str, rows: Sequence[Spread], unit: str, *, bars: bool = False, ring: str = ""
) -> str:
    """Draw a dot on the bar of its interval for each row, below the row's label, and a vertical line at zero.

    With `bars`, a bar from zero to the value instead, with its interval as a thin line and the value as text. Rings are
    drawn and explained only if a row has a baseline, under the name of `ring`.
    """
    row_height = 38.0
    height = TOP + row_height * len(rows) + BOTTOM
    values = [value for row in rows for value in row[1:] if math.isfinite(value)]
    ticks = nice_ticks(min([0.0, *values]), max([0.0, *values]), 4)
    axis = _axis(ticks[0], ticks[-1], 14.0, WIDTH - RIGHT)
    body = "".join(_upright("grid", axis(tick), height) for tick in ticks) + _x_labels(ticks, axis, height, unit)
    body += _upright("axis", axis(0.0), height)
    for place, row in enumerate(rows):
        y = TOP + row_height * place
        label = row.label if len(row.label) <= 52 else f"{row.label[:22]} … {row.label[-27:]}"
        body += f'<text class="label" x="14" y="{y + 14:.1f}">{escape(label)}</text>'
        if bars:
            body += (
                f'<text class="label" x="{WIDTH - RIGHT}" y="{y + 14:.1f}" text-anchor="end">{row.value:.0f}</text>'
                f'<line class="spread whole s0" x1="{axis(0.0):.1f}" x2="{axis(row.value):.1f}" y1="{y + 26:.1f}" '
                f'y2="{y + 26:.1f}"/>'
            )
        if math.isfinite(row.low + row.high):
            ends = f'x1="{axis(row.low):.1f}" x2="{axis(row.high):.1f}"'
            body += f'<line class="{"whisker" if bars else "spread s0"}" {ends} y1="{y + 26:.1f}" y2="{y + 26:.1f}"/>'
        if math.isfinite(row.baseline):
            body += f'<circle class="ring" cx="{axis(row.baseline):.1f}" cy="{y + 26:.1f}" r="5.5"/>'
        if math.isfinite(row.value) and not bars:
            body += _mark(0, axis(row.value), y + 26)
    rings = any(math.isfinite(row.baseline) for row in rows)
    key = f'<ul class="legend"><li><span class="key ring-key"></span>{escape(ring)}</li></ul>'
    return _svg(title, description, height, body) + (key if rings else "")


def weight_chart(title: str, templates: Sequence[str], weights: Tensor) -> str:
    """Each prompt's weight, largest first: the mean over classes on a bar from the 10th to 90th percentile.

    `templates` are the K prompts, `weights` are [C, K].
    """
    weights = weights.double()
    mean, low, high = weights.mean(dim=0), weights.quantile(0.1, dim=0), weights.quantile(0.9, dim=0)
    order = mean.argsort(descending=True, stable=True).tolist()
    rows = [Spread(templates[k], *(100 * float(some[k]) for some in (mean, low, high))) for k in order]
    text = "; ".join(f"{row.label}: {row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows)
    return interval_chart(title, text, rows, f"weight, %; even: {100 / len(templates):.3g}")


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    items = "".join(
        f'<li><svg viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">'
        f'<line class="line s{place}" x1="1" x2="27" y1="6" y2="6"/>{_mark(place, 14, 6)}</svg>{escape(name)}</li>'
        for place, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _mark(place: int, x: float, y: float) -> str:
    return f'<circle class="mark s{place}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def _upright(kind: str, x: float, height: float) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM:.1f}"/>'


def _thinned(points: Sequence[tuple[float, float]], maximum: int = 240) -> list[tuple[float, float]]:
    """Average neighbours down to about `maximum` points, for a small page and a smooth line."""
    size = math.ceil(len(points) / maximum)
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in c) / len(c), sum(y for _, y in c) / len(c)) for c in chunks]


def _x_labels(ticks: Sequence[float], axis: Callable[[float], float], height: float, label: str) -> str:
    texts = [(axis(tick), height - BOTTOM + 15, tick_label(tick)) for tick in ticks]
    texts.append((WIDTH / 2, height - 3, label))
    return "".join(
        f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>' for x, y, text in texts
    )


def _svg(title: str, description: str, height: float, body: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {height:g}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{body}</svg>"
    )
