"""Draw answers as HTML: bars with their numbers, tables and cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from prolip.explore.explorer import Range

CSS = """
.pl { font-size: .95rem; line-height: 1.45; }
.pl + .pl { margin-top: 1.6rem; }
/* Six tabs fit beside each other on a laptop. */
.tab-container button { padding-left: .45rem; padding-right: .45rem; font-size: .9rem; }
/* Gradio's own: names of images end before the arrow, names of tabs are not cut. */
[id$="-item"] input { text-overflow: ellipsis; padding-right: 1.2rem; }
/* Gradio's blue and light grey are too light on white, and on blue white is. */
body:not(.dark) { --color-accent: var(--primary-600); --button-primary-background-fill: var(--primary-600);
  --button-primary-background-fill-hover: var(--primary-700); --body-text-color-subdued: var(--neutral-500); }
.pl p { margin: 0 0 .7rem; color: var(--body-text-color); opacity: .85; max-width: 58em; }
.pl table { border-collapse: collapse; width: 100%; margin: 0 0 1.2rem; border: 0; }
.pl th, .pl td { text-align: left; padding: .4rem .8rem .4rem 0; vertical-align: top; border: 0; }
.pl tr { border: 0; border-bottom: 1px solid var(--border-color-primary); }
.pl th { font-weight: 600; font-size: .85rem; color: var(--body-text-color); }
.pl small { display: block; font-size: .75rem; line-height: 1.3; font-weight: 400; opacity: .8; }
.pl td.name { min-width: 8em; overflow-wrap: anywhere; font-weight: 500; }
.pl td.words { min-width: 11em; overflow-wrap: anywhere; }
.pl .cell { display: flex; flex-direction: column; gap: .2rem; min-width: 5em; }
.pl .cell b { font-weight: 400; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pl .bar { height: .6rem; min-width: 2.5em; background: var(--border-color-primary); border-radius: 99px;
  position: relative; overflow: hidden; }
.pl .bar i { position: absolute; top: 0; bottom: 0; border-radius: 99px; }
.pl .s0 { background: #5b58e0; } .pl .s1 { background: #0b8f84; } .pl .s2 { background: #c8690f; }
.pl .minus { background: #b3305c; }
.pl .mark { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: var(--body-text-color); }
.pl .hints { display: none; }
.pl ul.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: .8rem;
  list-style: none; margin: 0; padding: 0; }
.pl ul.cards li { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: .5rem; margin: 0;
  overflow-wrap: anywhere; font-size: .85rem; line-height: 1.35; display: flex; flex-direction: column; gap: .3rem; }
.pl ul.cards img { width: 100%; max-width: 160px; aspect-ratio: 1; margin: 0 auto; border-radius: 4px; }
.pl ul.cards .cell { margin-top: auto; }
@media (max-width: 640px) {
  .tab-wrapper { height: auto !important; }
  .tab-container { height: auto !important; flex-wrap: wrap !important; overflow: visible !important; }
  .tab-container button { flex: none; }
  .pl thead { display: none; }
  .pl tr { display: block; padding: .5rem 0; }
  .pl td { display: flex; gap: .6rem; padding: .15rem 0; }
  .pl td.name { font-weight: 600; }
  .pl td:not(.name)::before { content: attr(data-label); flex: none; width: 7em; font-size: .85rem;
    color: var(--body-text-color); opacity: .85; }
  .pl td.name:empty { display: none; }
  .pl .cell { flex: 1; }
  .pl .hints { display: block; font-size: .85rem; }
}
"""


class Head(NamedTuple):
    """A column header."""

    name: str
    hint: str = ""
    """How to read the column."""


class Spread:
    """Draws bars of uncertainty over their range, which is narrow, with the percentage above the lowest value.

    Values outside the scale widen the range.
    """

    def __init__(self, scale: Range | None, values: Sequence[float]) -> None:
        known = [*values, *([] if scale is None else scale[:2])]
        self._low, self._high = min(known), max(known)

    def bar(self, value: float) -> Markup:
        """Draw one value."""
        above = ""
        if value > self._low > 0:
            share = value / self._low - 1
            above = f" +{percent(share, 2 if share < 0.1 else 1)}"  # short enough for a card
        return bar(f"{value:#.4g}{above}", share_of(value - self._low, self._high - self._low), "s1")


def uncertain(scale: Range) -> Head:
    """Return the header of a column of uncertainties."""
    return Head("uncertainty", reading(scale.of))


def reading(of: str) -> str:
    """Return a hint on how to read a bar of uncertainty."""
    return f"percent above the most certain {of}; the bar ends at the least certain"


def percent(share: float, digits: int = 1) -> str:
    """Format a share in percent, without a line break."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def signed(value: float, digits: int) -> str:
    """Format a number with its sign, and with a real minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def share_of(value: float, largest: float) -> float:
    """Return `value / largest`; 0 if `largest` is not positive."""
    return value / largest if largest > 0 else 0.0


def bar(text: str, share: float, colour: str, mark: float | None = None) -> Markup:
    """Draw a bar from the left, with a vertical mark if one is given."""
    inside = Markup('<i class="{}" style="left:0;width:{:.1f}%"></i>').format(colour, 100 * min(1.0, share))
    if mark is not None:
        inside += Markup('<span class="mark" style="left:{:.1f}%"></span>').format(100 * mark)
    return _cell(text, inside)


def segment(text: str, first: float, last: float) -> Markup:
    """Draw the part of a bar from `first` to `last`, in percent."""
    width = max(5.0, last - first)
    left = min(first, 100 - width)
    return _cell(text, Markup('<i class="s0" style="left:{:.1f}%;width:{:.1f}%"></i>').format(left, width))


def balance(value: float, largest: float) -> Markup:
    """Draw a bar from the middle: to the right for positive values, to the left for negative ones."""
    width = 50 * share_of(abs(value), largest)
    left = 50.0 if value >= 0 else 50.0 - width
    colour = "s0" if value >= 0 else "minus"
    inner = Markup('<i class="{}" style="left:{:.1f}%;width:{:.1f}%"></i><span class="mark" style="left:50%"></span>')
    return _cell(f"{value:+#.3g}".replace("-", "−"), inner.format(colour, left, width))


def _cell(text: str, inside: Markup) -> Markup:
    return Markup('<div class="cell"><b>{}</b><div class="bar" aria-hidden="true">{}</div></div>').format(text, inside)


def table(heads: Sequence[Head], rows: Sequence[tuple[str, Sequence[Markup]]]) -> Markup:
    """Render a table. On narrow screens the hints are shown below it, because the header is hidden."""
    head = Markup("").join(
        Markup("<th scope='col'>{}{}</th>").format(name, Markup("<small>{}</small>").format(hint) if hint else "")
        for name, hint in heads
    )
    body = Markup("").join(
        Markup("<tr><td class='name'>{}</td>{}</tr>").format(
            name,
            Markup("").join(
                Markup("<td class='{}' data-label='{}'>{}</td>").format(
                    "" if 'class="cell"' in cell else "words", label, cell
                )
                for (label, _), cell in zip(heads[1:], cells, strict=True)
            ),
        )
        for name, cells in rows
    )
    hints = "; ".join(f"{name}: {hint}" for name, hint in heads if hint)
    below = Markup("<p class='hints'>{}.</p>").format(hints) if hints else ""
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}").format(head, body, below)


def block(text: str, inside: str) -> str:
    """Render a paragraph with `inside`, which is HTML, below it."""
    return str(Markup("<div class='pl'><p>{}</p>{}</div>").format(text, inside))


def sentence(text: str) -> str:
    """Render a line of text."""
    return block(text, "")
