"""A chart of prompt weights as a stand-alone SVG file for light and dark backgrounds."""

from collections.abc import Sequence

import torch
from markupsafe import Markup, escape
from torch import Tensor

from prolip.report.charts import nice_ticks, tick_label

_WIDTH, _LABELS, _RIGHT, _TOP, _ROW = 900.0, 430.0, 24.0, 64.0, 22.0
_LONGEST = 58
_STYLE = """
svg { background: #fff; font: 14px system-ui, sans-serif; fill: #1b1f24 }
.grid { stroke: #d9dee4 } .even { stroke: #c2410c; stroke-width: 1.5; stroke-dasharray: 5 4 }
.range { stroke: #2f6fb5; stroke-width: 5; stroke-opacity: .35; stroke-linecap: round } .mean { fill: #2f6fb5 }
.note { fill: #57606a; font-size: 13px }
@media (prefers-color-scheme: dark) {
  svg { background: #14181d; fill: #e8ecf0 } .grid { stroke: #333b44 } .even { stroke: #fb923c }
  .range { stroke: #7db8f0 } .mean { fill: #7db8f0 } .note { fill: #a3adb8 }
}
"""


def prompt_chart(templates: Sequence[str], weights: Tensor) -> Markup:
    """Draw each prompt's weight, largest first: the mean over classes on a bar from the 10th to the 90th percentile.

    `templates` are the K prompts, `weights` are [C, K].
    """
    weights = weights.double()
    mean = weights.mean(dim=0)
    low, high = torch.quantile(weights, torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0)
    ticks = nice_ticks(0.0, max(float(high.max()), float(mean.max()), 1 / len(templates)), 5)
    height = _TOP + _ROW * len(templates) + 40

    def across(value: float) -> float:
        return _LABELS + value / ticks[-1] * (_WIDTH - _LABELS - _RIGHT)

    bottom = height - 36
    body = ""
    for tick in ticks:
        body += _upright("grid", across(tick), bottom) + (
            f'<text class="note" x="{across(tick):.1f}" y="{bottom + 20:.1f}" text-anchor="middle">'
            f"{tick_label(tick, ticks[1])}</text>"
        )
    body += _upright("even", across(1 / len(templates)), bottom)
    for row, place in enumerate(torch.argsort(mean, descending=True, stable=True).tolist()):
        y = _TOP + _ROW * (row + 0.5)
        label = templates[place]
        shown = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
        body += (
            f"<g><title>{escape(label)}: mean {float(mean[place]):.4f}, "
            f"{float(low[place]):.4f} to {float(high[place]):.4f}</title>"
            f'<text x="{_LABELS - 14:.1f}" y="{y + 5:.1f}" text-anchor="end">{escape(shown)}</text>'
            f'<line class="range" x1="{across(float(low[place])):.1f}" x2="{across(float(high[place])):.1f}"'
            f' y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<circle class="mean" cx="{across(float(mean[place])):.1f}" cy="{y:.1f}" r="5"/></g>'
        )
    title = f"Weights of {len(templates)} prompts over {len(weights)} classes"
    note = "dot: mean over classes; bar: 10th to 90th percentile; dashed: even weights"
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<text x="20" y="26" font-size="18" font-weight="600">{escape(title)}</text>'
        f'<text class="note" x="20" y="48">{escape(note)}</text>{body}</svg>\n'
    )


def _upright(kind: str, x: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>'
