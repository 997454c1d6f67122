"""Render the explorer's answers as HTML: bars with their numbers, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from prolip.explore.explorer import Classified, Compared, Pair, Range, Stop

CSS = """
.pl { font-size: .95rem; line-height: 1.45; }
.pl + .pl { margin-top: 1.6rem; }
/* Gradio's own: names of pictures end before the arrow, names of tabs are not cut. */
[id$="-item"] input { text-overflow: ellipsis; padding-right: 1.2rem; }
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


_CAPTION = Head("caption")
_INSIDE = Head("inclusion H", "◂ caption lies in picture | picture lies in caption ▸")


def compared(found: Compared, scale: Range) -> str:
    """Render an image compared with captions."""
    heads = [
        _CAPTION,
        Head("similarity", "of the means, at most 1"),
        Head("sampled distance", "smaller is nearer; the bar ends at the farthest"),
        _uncertain(scale),
        _INSIDE,
    ]
    views = found.views
    if views[0].match is not None:
        heads.insert(1, Head("match", "probability of a match, as in training"))
    spread = _Spread(scale, [view.uncertainty for view in views])
    furthest = max(view.distance or 0.0 for view in views)
    most = max(abs(view.image_in_caption or 0.0) for view in views)
    rows = []
    for view in views:
        cells = [] if view.match is None else [_bar(_percent(view.match), view.match, "s0")]
        cells += [
            _bar(_signed(view.similarity or 0.0, 3), max(0.0, view.similarity or 0.0), "s0"),
            _bar(f"{view.distance:.3f}", _share(view.distance or 0.0, furthest), "s2"),
            spread.bar(view.uncertainty),
            _balance(view.image_in_caption or 0.0, most),
        ]
        rows.append((view.caption, cells))
    rank = ""
    if found.more_certain is not None:
        rank = f"; {_percent(found.more_certain, 0)} of the pictures in the data set are more certain"
    return _block(
        f"The picture's own uncertainty is {found.uncertainty:#.4g}{rank}. The nearest caption comes first. The "
        "sampled distance is the distance of the means plus both uncertainties. H says which of the two is wider, not "
        "whether they belong together.",
        _table(heads, rows),
    )


def paired(pair: Pair, scale: Range) -> str:
    """Render two captions compared with each other."""
    spread = _Spread(scale, [pair.first.uncertainty, pair.second.uncertainty])
    most = abs(pair.first_in_second)
    rows = [
        (
            view.caption,
            [
                spread.bar(view.uncertainty),
                _balance(inside, most),
                Markup("{} token{}").format(view.num_tokens, "" if view.num_tokens == 1 else "s"),
            ],
        )
        for view, inside in ((pair.first, pair.first_in_second), (pair.second, -pair.first_in_second))
    ]
    change = pair.first.uncertainty / pair.second.uncertainty - 1 if pair.second.uncertainty > 0 else 0.0
    inside = "The first lies in the second" if pair.first_in_second > 0 else "The second lies in the first"
    if pair.first_in_second == 0:
        inside = "Neither lies in the other"
    words = "more" if change >= 0 else "less"
    return _block(
        f"The first caption is {_percent(abs(change), 2)} {words} uncertain than the second. {inside}. Similarity of "
        f"the means: {_signed(pair.similarity, 3)}; sampled distance: {pair.distance:.3f}. Longer captions tend to be "
        "more certain, so compare captions of equal length.",
        _table(
            [
                _CAPTION,
                _uncertain(scale),
                Head("inclusion H", "◂ contains the other | lies in the other ▸"),
                Head("length"),
            ],
            rows,
        ),
    )


def walked(stops: Sequence[Stop], root: str, scale: Range) -> str:
    """Render the captions between an image and the root."""
    spread = _Spread(scale, [stop.view.uncertainty for stop in stops])
    most = max(abs(stop.view.image_in_caption or 0.0) for stop in stops)
    rows = []
    for stop in stops:
        first = 100 * stop.first_step / stop.num_steps
        last = min(100.0, 100 * (stop.last_step + 1) / stop.num_steps)
        part = f"{first:.0f}–{last:.0f}\N{NO-BREAK SPACE}%" if first < last else "the end"
        rows.append(
            (
                stop.view.caption,
                [
                    _segment(part, first, last),
                    spread.bar(stop.view.uncertainty),
                    _balance(stop.view.image_in_caption or 0.0, most),
                ],
            )
        )
    return _block(
        f"The query starts at the caption nearest to the picture and moves in {stops[0].num_steps} steps towards "
        f"“{root}”. The table lists the captions nearest to it on the way. If the model has learnt the order, they "
        "become more general and more uncertain.",
        _table([_CAPTION, Head("part of the way", "nearest caption to root"), _uncertain(scale), _INSIDE], rows),
    )


def classified(found: Classified) -> str:
    """Render the classes of an image, and the prompts that each class prefers."""
    parts = []
    if found.even is not None:
        order = sorted(range(len(found.names)), key=lambda place: -(found.weighted or found.even or [])[place])[:10]
        rows = []
        for place in order:
            cells = [_bar(_percent(found.even[place]), found.even[place], "s0")]
            if found.weighted is not None:
                cells.append(_bar(_percent(found.weighted[place]), found.weighted[place], "s1"))
            rows.append((found.names[place], cells))
        heads = [
            Head("class"),
            Head("even prompts"),
            *([] if found.weighted is None else [Head("re-weighted prompts")]),
        ]
        heading = "Probability of each class (a softmax as in the paper, not calibrated)"
        heading += f"; the first {len(order)} of {len(found.names)}." if len(order) < len(found.names) else "."
        parts.append(_block(heading, _table(heads, rows)))
    if found.weights is None:
        why = (
            "there is only one template"
            if len(found.templates) == 1
            else "this needs images of a data set: start with --shards"
        )
        parts.append(_block(f"Prompts are not weighted: {why}.", ""))
        return "".join(parts)
    even = 1 / len(found.templates)
    rows = []
    largest = max(max(row) for row in found.weights)
    spread = _Spread(None, [value for row in found.uncertainties for value in row])
    for name, weights, uncertainties in zip(found.names, found.weights, found.uncertainties, strict=True):
        best = max(range(len(weights)), key=weights.__getitem__)
        worst = min(range(len(weights)), key=weights.__getitem__)
        for word, place in (("prefers", best), ("avoids", worst)):
            prompt = found.templates[place].replace("{}", name)
            cells = [
                Markup("{} “{}”").format(word, prompt),
                _bar(_percent(weights[place]), _share(weights[place], largest), "s1", mark=_share(even, largest)),
                spread.bar(uncertainties[place]),
            ]
            rows.append((name if word == "prefers" else "", cells))
    heads = [
        Head("class"),
        Head("prompt"),
        Head("weight", f"the mark is an even weight, {_percent(even)}"),
        Head("uncertainty", _reading("prompt")),
    ]
    parts.append(
        _block(
            f"The {len(found.templates)} prompts of each class are weighted by how well they fit the nearest pictures "
            "of the data set (Bayesian prompt re-weighting). Shown are the prompts that a class prefers most and "
            "least.",
            _table(heads, rows),
        )
    )
    return "".join(parts)


def ranked_captions(rows: Sequence[tuple[str, float]], heading: str, scale: Range) -> str:
    """Render captions with their uncertainty, below a heading."""
    spread = _Spread(scale, [value for _, value in rows])
    body = [(caption, [spread.bar(value)]) for caption, value in rows]
    return _block(heading, _table([_CAPTION, _uncertain(scale)], body))


def ranked_images(cards: Sequence[tuple[str, str, float]], heading: str, scale: Range) -> str:
    """Render images (URI, name, uncertainty) as cards, below a heading."""
    spread = _Spread(scale, [value for *_, value in cards])
    shown = Markup("").join(
        Markup('<li><img src="{}" alt="{}">{}{}</li>').format(uri, name, name, spread.bar(value))
        for uri, name, value in cards
    )
    return _block(f"{heading} Uncertainties: {_reading(scale.of)}.", Markup('<ul class="cards">{}</ul>').format(shown))


class _Spread:
    """Draws bars of uncertainty over their range, which is narrow, with the percentage above the lowest value.

    Values outside the scale widen the range.
    """

    def __init__(self, scale: Range | None, values: Sequence[float]) -> None:
        known = [*values, *([] if scale is None else scale[:2])]
        self._low, self._high = min(known), max(known)

    def bar(self, value: float) -> Markup:
        above = f" +{_percent(value / self._low - 1, 2)}" if value > self._low > 0 else ""
        return _bar(f"{value:#.4g}{above}", _share(value - self._low, self._high - self._low), "s1")


def _uncertain(scale: Range) -> Head:
    return Head("uncertainty", _reading(scale.of))


def _reading(of: str) -> str:
    return f"percent above the most certain {of}; the bar ends at the least certain"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _share(value: float, largest: float) -> float:
    return value / largest if largest > 0 else 0.0


def _bar(text: str, share: float, colour: str, mark: float | None = None) -> Markup:
    inside = Markup('<i class="{}" style="left:0;width:{:.1f}%"></i>').format(colour, 100 * min(1.0, share))
    if mark is not None:
        inside += Markup('<span class="mark" style="left:{:.1f}%"></span>').format(100 * mark)
    return _cell(text, inside)


def _segment(text: str, first: float, last: float) -> Markup:
    width = max(5.0, last - first)
    left = min(first, 100 - width)
    return _cell(text, Markup('<i class="s0" style="left:{:.1f}%;width:{:.1f}%"></i>').format(left, width))


def _balance(value: float, largest: float) -> Markup:
    """Draw a bar from the middle: to the right for positive values, to the left for negative ones."""
    width = 50 * _share(abs(value), largest)
    left = 50.0 if value >= 0 else 50.0 - width
    colour = "s0" if value >= 0 else "minus"
    inner = Markup('<i class="{}" style="left:{:.1f}%;width:{:.1f}%"></i><span class="mark" style="left:50%"></span>')
    return _cell(f"{value:+#.3g}".replace("-", "−"), inner.format(colour, left, width))


def _cell(text: str, inside: Markup) -> Markup:
    return Markup('<div class="cell"><b>{}</b><div class="bar" aria-hidden="true">{}</div></div>').format(text, inside)


def _table(heads: Sequence[Head], rows: Sequence[tuple[str, Sequence[Markup]]]) -> Markup:
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


def _block(text: str, inside: str) -> str:
    return str(Markup("<div class='pl'><p>{}</p>{}</div>").format(text, inside))


def sentence(text: str) -> str:
    """Render a line of text."""
    return _block(text, "")
