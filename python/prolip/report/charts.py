"""Small SVG charts. The page's style sheet colours them; marks and dashes also differ, for readers who see no colour.

They are as wide as a phone's screen (360 units), so that text keeps its size there and several charts fit side by side
on a laptop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

WIDTH = 360.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 18.0, 10.0, 36.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart. Its position among the lines determines its colour, dash and mark."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    untrained: Sequence[float] = ()
    """Values of an untrained model, drawn thin and hollow; empty for none."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A row of a spread chart: a mean and a range around it."""

    label: str
    mean: float
    low: float
    high: float
    untrained: float
    """Mean of an untrained model, drawn as a ring."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a diverging bar chart."""

    label: str
    value: float
    note: str
    untrained: float
    """Value of an untrained model, drawn as a ring."""


class _Axis:
    """Maps values linearly to drawing coordinates."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


class _LogAxis(_Axis):
    """Maps positive values logarithmically to drawing coordinates."""

    def __call__(self, value: float) -> float:
        return _Axis(math.log(self.low), math.log(self.high), self.start, self.end)(math.log(value))


def log_ticks(low: float, high: float) -> list[float]:
    """Return ticks that cover [low, high]: 1, 2 and 5 times powers of ten, or only powers of ten if there are many."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for factors in ((1, 2, 5), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        below = max(tick for tick in ticks if tick <= low * 1.000001)
        above = min(tick for tick in ticks if tick >= high * 0.999999 and tick > below)
        kept = [tick for tick in ticks if below <= tick <= above]
        if len(kept) <= 6:
            break
    return kept


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round ticks that cover [low, high] in about `count` steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """Format a tick with as many decimals as the step needs; large and very small numbers are abbreviated."""
    if abs(value) < step * 1e-6:
        return "0"
    if abs(value) >= 1e6:
        text = f"{value / 1e6:g}M"
    elif abs(value) >= 1e4:
        text = f"{value / 1e3:g}k"
    elif step < 1e-3:
        text = f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    else:
        text = f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    return text.replace("-", "−")


def line_chart(
    title: str,
    description: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_scale: Literal["linear", "from zero", "share", "log"] = "linear",
    percent: bool = False,
    marks: bool = False,
    height: float = 210.0,
) -> Markup:
    """Draw lines over a common axis, with `marks` at every point. The scale "share" always covers 0 to 1.

    NaN is left out, and so are values <= 0 on a logarithmic scale. Returns "" if no point is left.
    """
    log = y_scale == "log"
    points = [_drawable(line.x, line.y, log) for line in lines]
    untrained = [_drawable(line.x, line.untrained, log) if line.untrained else [] for line in lines]
    flat = [point for line in [*points, *untrained] for point in line]
    if not flat:
        return Markup("")
    ends = {"from zero": [0.0], "share": [0.0, 1.0]}
    values = [y for _, y in flat] + ends.get(y_scale, [])
    ticks = log_ticks(min(values), max(values)) if log else nice_ticks(min(values), max(values), 4)
    y_axis = (_LogAxis if log else _Axis)(ticks[0], ticks[-1], height - BOTTOM, TOP)
    xs = [x for x, _ in flat]
    x_axis = _Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, WIDTH - RIGHT)
    body = _y_grid(ticks, y_axis, percent)
    body += _x_labels([t for t in nice_ticks(min(xs), max(xs), 5) if min(xs) <= t <= max(xs)], x_axis, height, x_label)
    for hollow, drawn in ((True, untrained), (False, points)):
        for place, line in enumerate(drawn):
            if line:
                path = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in _thinned(line))
                body += f'<polyline class="line{" untrained" if hollow else ""} s{place}" points="{path}"/>'
            if marks:
                body += "".join(_mark(place, x_axis(x), y_axis(y), hollow) for x, y in line)
    note = Markup("<li>thin and hollow: untrained</li>") if any(untrained) else None
    return _svg(title, description, height, body) + legend([line.name for line in lines], note)


def spread_chart(title: str, description: str, groups: Sequence[tuple[str, Sequence[Spread]]], unit: str) -> Markup:
    """Draw a dot (mean) on a bar (10th to 90th percentile) for each row. Groups share rows, one below the other."""
    labels = [spread.label for spread in groups[0][1]]
    left, row_height = 82.0, 46.0
    height = TOP + row_height * len(labels) + BOTTOM
    values = [v for _, rows in groups for row in rows for v in (row.low, row.high, row.mean, row.untrained)]
    axis, body = _x_grid(values, left, height, unit)
    for row, label in enumerate(labels):
        middle = TOP + row_height * (row + 0.5)
        body += f'<text class="label" x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        for place, (_, spreads) in enumerate(groups):
            y = middle + (place - (len(groups) - 1) / 2) * 16
            spread = spreads[row]
            body += (
                f'<line class="spread s{place}" x1="{axis(spread.low):.1f}" x2="{axis(spread.high):.1f}"'
                f' y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            body += _ring("ring open", axis, spread.untrained, y) + _mark(place, axis(spread.mean), y)
    return _svg(title, description, height, body) + legend([name for name, _ in groups], _RING)


def interval_chart(title: str, description: str, rows: Sequence[Spread], unit: str) -> Markup:
    """Draw a dot on the bar of its interval for each row, below the row's label, and a vertical line at zero.

    Rings are drawn and explained only if a row has an untrained value.
    """
    row_height = 38.0
    height = TOP + row_height * len(rows) + BOTTOM
    values = [value for row in rows for value in (row.low, row.high, row.mean, row.untrained)]
    axis, body = _x_grid([0.0, *values], 14.0, height, unit)
    body += _upright("axis", axis(0.0), height)
    for place, row in enumerate(rows):
        y = TOP + row_height * place
        body += f'<text class="label" x="14" y="{y + 14:.1f}">{escape(row.label)}</text>'
        if math.isfinite(row.low + row.high):
            ends = f'x1="{axis(row.low):.1f}" x2="{axis(row.high):.1f}"'
            body += f'<line class="spread s0" {ends} y1="{y + 26:.1f}" y2="{y + 26:.1f}"/>'
        body += _ring("ring open", axis, row.untrained, y + 26) + _mark(0, axis(row.mean), y + 26)
    rings = any(math.isfinite(row.untrained) for row in rows)
    return _svg(title, description, height, body) + legend([], _RING if rings else None)


def diverging_bars(title: str, description: str, bars: Sequence[Bar], unit: str) -> Markup:
    """Draw horizontal bars: to the right of zero for positive values, to the left for negative ones."""
    row_height = 42.0
    height = TOP + row_height * len(bars) + BOTTOM
    values = [value for bar in bars for value in (bar.value, bar.untrained)]
    axis, body = _x_grid([0.0, *values], 14.0, height, unit)
    for row, bar in enumerate(bars):
        y = TOP + row_height * row
        body += f'<text class="label" x="14" y="{y + 14:.1f}">{escape(bar.label)}</text>'
        body += f'<text class="note" x="{WIDTH - RIGHT}" y="{y + 14:.1f}" text-anchor="end">{escape(bar.note)}</text>'
        if math.isfinite(bar.value):
            start, end = sorted((axis(0.0), axis(bar.value)))
            kind = "s0" if bar.value >= 0 else "s2"
            place = f'x="{start:.1f}" y="{y + 20:.1f}" width="{end - start:.1f}" height="12"'
            body += f'<rect class="bar {kind}" {place} rx="2"/>'
        body += _ring("ring", axis, bar.untrained, y + 26)
    body += _upright("axis", axis(0.0), height)
    return _svg(title, description, height, body) + legend([], _RING)


def bullet(title: str, trained: float, random: float, chance: float) -> Markup:
    """Draw a share from 0 to 1 as a bar, with a ring for the untrained model and a tick for chance."""
    axis = _Axis(0.0, 1.0, 2.0, 298.0)
    body = '<rect class="track" x="2" y="8" width="296" height="16" rx="5"/>'
    if math.isfinite(trained):
        body += f'<rect class="bar s0" x="2" y="8" width="{max(axis(trained) - 2, 1):.1f}" height="16" rx="5"/>'
    if math.isfinite(chance):
        body += f'<line class="chance" x1="{axis(chance):.1f}" x2="{axis(chance):.1f}" y1="2" y2="30"/>'
    if math.isfinite(random):
        body += f'<circle class="ring" cx="{axis(random):.1f}" cy="16" r="6.5"/>'
    return Markup(f'<svg class="bullet" viewBox="0 0 300 32" role="img"><title>{escape(title)}</title>{body}</svg>')


_RING = Markup('<li><span class="key ring-key"></span>untrained</li>')


def legend(names: Sequence[str], note: Markup | None = None) -> Markup:
    """Render a legend of the lines, then `note`; "" for a single line without a note."""
    if len(names) < 2 and not note:
        return Markup("")
    items = "".join(
        f'<li><svg viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">'
        f'<line class="line s{place}" x1="1" x2="27" y1="6" y2="6"/>{_mark(place, 14, 6)}</svg>{escape(name)}</li>'
        for place, name in enumerate(names)
    )
    return Markup(f'<ul class="legend">{items}{note or ""}</ul>')


def _ring(kind: str, axis: _Axis, value: float, y: float) -> str:
    """Draw the untrained value. The kind "ring open" does not hide a mark at the same position."""
    return f'<circle class="{kind}" cx="{axis(value):.1f}" cy="{y:.1f}" r="5.5"/>' if math.isfinite(value) else ""


def _mark(place: int, x: float, y: float, hollow: bool = False) -> str:
    """Draw a disc, diamond, square or triangle, by the line's position."""
    kind = f'class="mark{" untrained" if hollow else ""} s{place}"'
    match place % 4:
        case 0:
            return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        case 1:
            return f'<path {kind} d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"/>'
        case 2:
            return f'<rect {kind} x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
        case _:
            return f'<path {kind} d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>'


def _upright(kind: str, x: float, height: float) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM:.1f}"/>'


def _drawable(xs: Sequence[float], ys: Sequence[float], log: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y) and (y > 0 or not log)]


def _thinned(points: Sequence[tuple[float, float]], most: int = 240) -> list[tuple[float, float]]:
    """Average neighbouring points down to about `most` points, for a small page and a smooth line."""
    run = math.ceil(len(points) / most)
    chunks = [points[start : start + run] for start in range(0, len(points), run)]
    return [(sum(x for x, _ in c) / len(c), sum(y for _, y in c) / len(c)) for c in chunks]


def _y_grid(ticks: Sequence[float], axis: _Axis, percent: bool) -> str:
    parts = []
    for tick in ticks:
        # On a logarithmic scale the decimals of a tick depend on its own size.
        step = min(tick, 1.0) if isinstance(axis, _LogAxis) else ticks[1] - ticks[0]
        label = f"{tick * 100:.{0 if step >= 0.0099 else 1}f}\u202f%" if percent else tick_label(tick, step)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axis(tick):.1f}" y2="{axis(tick):.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{axis(tick) + 4:.1f}" text-anchor="end">{label}</text>'
        )
    return "".join(parts)


def _x_grid(values: Sequence[float], start: float, height: float, label: str) -> tuple[_Axis, str]:
    """Return a horizontal axis over the finite values, from `start` on, and its labelled grid."""
    finite = [value for value in values if math.isfinite(value)]
    ticks = nice_ticks(min(finite), max(finite), 4)
    axis = _Axis(ticks[0], ticks[-1], start, WIDTH - RIGHT)
    grid = "".join(_upright("grid", axis(tick), height) for tick in ticks)
    return axis, grid + _x_labels(ticks, axis, height, label)


def _x_labels(ticks: Sequence[float], axis: _Axis, height: float, label: str) -> str:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    parts = [
        f'<text class="tick" x="{axis(tick):.1f}" y="{height - BOTTOM + 15:.1f}" text-anchor="middle">'
        f"{tick_label(tick, step)}</text>"
        for tick in ticks
    ]
    middle = (axis.start + axis.end) / 2
    parts.append(
        f'<text class="tick" x="{middle:.1f}" y="{height - 3:.1f}" text-anchor="middle">{escape(label)}</text>'
    )
    return "".join(parts)


def _svg(title: str, description: str, height: float, body: str) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {height:g}" role="img"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{body}</svg>"
    )
