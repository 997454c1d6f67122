"""The explorer's answers as HTML: bars with their numbers, and a sentence that says how to read them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from prolip.explore.explorer import CaptionView, Classified, Pair, Stop

CSS = """
.pl { font-size: .95rem; line-height: 1.45; }
.pl p { margin: 0 0 .7rem; color: var(--body-text-color); opacity: .78; max-width: 58em; }
.pl table { border-collapse: collapse; width: 100%; margin: 0 0 1.2rem; border: 0; }
.pl th, .pl td { text-align: left; padding: .35rem .6rem .35rem 0; vertical-align: middle; border: 0; }
.pl tr { border: 0; border-bottom: 1px solid var(--border-color-primary); }
.pl th { font-weight: 600; font-size: .82rem; color: var(--body-text-color); opacity: .78; vertical-align: bottom; }
.pl td.name { min-width: 9em; overflow-wrap: anywhere; font-weight: 500; }
.pl td.words { min-width: 11em; overflow-wrap: anywhere; }
.pl .cell { display: flex; flex-wrap: wrap; align-items: center; gap: .1rem .5rem; min-width: 5.5em; }
.pl .cell b { flex: none; min-width: 4.2em; white-space: nowrap; font-weight: 400; font-variant-numeric: tabular-nums; }
.pl .bar { flex: 1 1 2.5em; height: .6rem; min-width: 2.5em; background: var(--border-color-primary);
  border-radius: 99px; position: relative; overflow: hidden; }
.pl .bar i { position: absolute; top: 0; bottom: 0; border-radius: 99px; }
.pl .s0 { background: #5b58e0; } .pl .s1 { background: #0b8f84; } .pl .s2 { background: #c8690f; }
.pl .minus { background: #b3305c; }
.pl .mid { position: absolute; left: 50%; top: 0; bottom: 0; width: 1px; background: var(--body-text-color); }
@media (max-width: 640px) {
  .pl thead { display: none; }
  .pl tr { display: block; padding: .4rem 0; }
  .pl td { display: flex; gap: .6rem; padding: .12rem 0; }
  .pl td.name { font-weight: 600; }
  .pl td:not(.name)::before { content: attr(data-label); flex: none; width: 7.5em; font-size: .82rem;
    color: var(--body-text-color); opacity: .78; }
  .pl .cell { flex: 1; }
}
"""


def compared(views: Sequence[CaptionView]) -> str:
    """Captions beside a picture."""
    columns = ["similarity of means", "sampled distance", "uncertainty", "picture lies in caption"]
    if views[0].match is not None:
        columns.insert(0, "match")
    spread = _Spread([view.uncertainty for view in views])
    furthest = max(view.distance or 0.0 for view in views)
    most = max(abs(view.picture_in_caption or 0.0) for view in views)
    rows = []
    for view in views:
        cells = [] if view.match is None else [_bar(f"{view.match:.1%}", view.match, "s0")]
        cells += [
            _bar(f"{view.similarity:+.3f}", max(0.0, view.similarity or 0.0), "s0"),
            _bar(f"{view.distance:.3f}", _share(view.distance or 0.0, furthest), "s2"),
            spread.bar(view.uncertainty),
            _balance(view.picture_in_caption or 0.0, most),
        ]
        rows.append((view.caption, cells))
    return _block(
        "Nearest first. The sampled distance is what the means are apart, plus both uncertainties; percentages are "
        "above the lowest uncertainty here. A picture lies in a caption where the caption is the wider of the two (bar "
        "to the right); to the left the caption lies in the picture. That says nothing about whether they belong "
        "together: the match does.",
        _table(["caption", *columns], rows),
    )


def paired(pair: Pair) -> str:
    """Two captions beside each other."""
    spread = _Spread([pair.first.uncertainty, pair.second.uncertainty])
    rows = [
        (
            view.caption,
            [
                spread.bar(view.uncertainty),
                Markup("{} token{}").format(view.num_tokens, "" if view.num_tokens == 1 else "s"),
            ],
        )
        for view in (pair.first, pair.second)
    ]
    change = pair.first.uncertainty / pair.second.uncertainty - 1 if pair.second.uncertainty > 0 else 0.0
    inside = "The first lies in the second" if pair.first_in_second > 0 else "The second lies in the first"
    if pair.first_in_second == 0:
        inside = "Neither lies in the other"
    words = "more" if change >= 0 else "less"
    return _block(
        f"The first caption is {abs(change):.2%} {words} uncertain than the second. {inside} "
        f"(H = {pair.first_in_second:+.4f} a dimension). Similarity of the means: {pair.similarity:+.3f}; sampled "
        f"distance: {pair.distance:.3f}. Longer captions tend to be more certain: compare those of equal length.",
        _table(["caption", "uncertainty", "length"], rows),
    )


def walked(stops: Sequence[Stop], root: str) -> str:
    """The captions between a picture and the root."""
    spread = _Spread([stop.view.uncertainty for stop in stops])
    most = max(abs(stop.view.picture_in_caption or 0.0) for stop in stops)
    rows = []
    for stop in stops:
        first, last = 100 * stop.first_step / stop.num_steps, 100 * (stop.last_step + 1) / stop.num_steps
        rows.append(
            (
                stop.view.caption,
                [
                    _segment(f"{first:.0f}–{last:.0f} %", first, last),
                    spread.bar(stop.view.uncertainty),
                    _balance(stop.view.picture_in_caption or 0.0, most),
                ],
            )
        )
    return _block(
        f"From the caption nearest to the picture the query moves in {stops[0].num_steps} steps towards “{root}”. "
        "These are the captions that are nearest to it on the way. Where the model knows the order, they become more "
        "general and more uncertain.",
        _table(["caption", "part of the way", "uncertainty", "picture lies in caption"], rows),
    )


def classified(found: Classified) -> str:
    """What a classifier says, and which prompts a class prefers."""
    parts = []
    if found.even is not None:
        order = sorted(range(len(found.names)), key=lambda place: -(found.weighted or found.even or [])[place])[:10]
        rows = []
        for place in order:
            cells = [_bar(f"{found.even[place]:.1%}", found.even[place], "s0")]
            if found.weighted is not None:
                cells.append(_bar(f"{found.weighted[place]:.1%}", found.weighted[place], "s1"))
            rows.append((found.names[place], cells))
        heads = ["class", "even prompts", *(["re-weighted prompts"] if found.weighted is not None else [])]
        parts.append(_block("Shares of the classes (a softmax, as published: not calibrated).", _table(heads, rows)))
    if found.weights is None:
        why = (
            "only one template" if len(found.templates) == 1 else "no pictures of a data set to vote: start with --data"
        )
        parts.append(_block(f"Prompts are not weighted: there is {why}.", ""))
        return "".join(parts)
    rows = []
    largest = max(max(row) for row in found.weights)
    for name, weights, uncertainties in zip(found.names, found.weights, found.uncertainties, strict=True):
        best = max(range(len(weights)), key=weights.__getitem__)
        worst = min(range(len(weights)), key=weights.__getitem__)
        for word, place in (("prefers", best), ("avoids", worst)):
            prompt = found.templates[place].replace("{}", name)
            cells = [
                Markup("{} “{}”").format(word, prompt),
                _bar(f"{weights[place]:.3f}", _share(weights[place], largest), "s1"),
                Markup("{:.4g}").format(uncertainties[place]),
            ]
            rows.append((name if word == "prefers" else "", cells))
    even = 1 / len(found.templates)
    parts.append(
        _block(
            f"Each class's {len(found.templates)} prompts are weighted by how well they fit the data set's pictures "
            f"that are nearest to the class (Bayesian prompt re-weighting). Even weights would be {even:.3f}.",
            _table(["class", "prompt", "weight", "uncertainty"], rows),
        )
    )
    return "".join(parts)


def ranked(rows: Sequence[tuple[str, float]], first_place: int, total: int) -> str:
    """Captions by their uncertainty."""
    spread = _Spread([value for _, value in rows] or [0.0])
    body = [(caption, [spread.bar(value)]) for caption, value in rows]
    return _block(
        f"Places {first_place + 1} to {first_place + len(rows)} of {total}.", _table(["caption", "uncertainty"], body)
    )


class _Spread:
    """Uncertainties that differ by little: bars from the lowest to the highest of those shown, numbers relative."""

    def __init__(self, values: Sequence[float]) -> None:
        self._low, self._high = min(values), max(values)

    def bar(self, value: float) -> Markup:
        above = f"+{value / self._low - 1:.2%}" if self._low > 0 else ""
        return _bar(f"{value:.4g} {above}", _share(value - self._low, self._high - self._low), "s1")


def _share(value: float, largest: float) -> float:
    return value / largest if largest > 0 else 0.0


def _bar(text: str, share: float, colour: str) -> Markup:
    return _cell(text, Markup('<i class="{}" style="left:0;width:{:.1f}%"></i>').format(colour, 100 * min(1.0, share)))


def _segment(text: str, first: float, last: float) -> Markup:
    return _cell(
        text, Markup('<i class="s0" style="left:{:.1f}%;width:{:.1f}%"></i>').format(first, max(1.0, last - first))
    )


def _balance(value: float, largest: float) -> Markup:
    """A bar from the middle, to the right where the value is positive."""
    width = 50 * _share(abs(value), largest)
    left = 50.0 if value >= 0 else 50.0 - width
    colour = "s0" if value >= 0 else "minus"
    inner = Markup('<i class="{}" style="left:{:.1f}%;width:{:.1f}%"></i><span class="mid"></span>')
    return _cell(f"{value:+.4f}", inner.format(colour, left, width))


def _cell(text: str, inside: Markup) -> Markup:
    return Markup('<div class="cell"><b>{}</b><div class="bar" aria-hidden="true">{}</div></div>').format(text, inside)


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Markup]]]) -> Markup:
    head = Markup("").join(Markup("<th scope='col'>{}</th>").format(name) for name in heads)
    body = Markup("").join(
        Markup("<tr><td class='name'>{}</td>{}</tr>").format(
            name,
            Markup("").join(
                Markup("<td class='{}' data-label='{}'>{}</td>").format(
                    "" if 'class="cell"' in cell else "words", label, cell
                )
                for label, cell in zip(heads[1:], cells, strict=True)
            ),
        )
        for name, cells in rows
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)


def _block(sentence: str, inside: str) -> str:
    return str(Markup("<div class='pl'><p>{}</p>{}</div>").format(sentence, inside))


def sentence(text: str) -> str:
    """A line of text."""
    return _block(text, "")
