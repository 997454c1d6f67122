"""Render the explorer's answers as HTML, and how to read them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from prolip.explore.drawing import (
    Head,
    Spread,
    balance,
    bar,
    block,
    percent,
    reading,
    segment,
    sentence,
    share_of,
    signed,
    table,
    uncertain,
)
from prolip.explore.explorer import Classified, Compared, Pair, Range, Stop

_CAPTION = Head("caption")
_INSIDE = Head("inclusion H", "◂ caption lies in image | image lies in caption ▸")


def compared(found: Compared, scale: Range) -> str:
    """Render an image compared with captions."""
    heads = [
        _CAPTION,
        Head("similarity", "of the means, at most 1"),
        Head("sampled distance", "smaller is nearer; the bar ends at the farthest"),
        uncertain(scale),
        _INSIDE,
    ]
    views = found.views
    if views[0].match is not None:
        heads.insert(1, Head("match", "probability of a match, as in training"))
    spread = Spread(scale, [view.uncertainty for view in views])
    furthest = max(view.distance for view in views)
    most = max(abs(view.image_in_caption) for view in views)
    rows = []
    for view in views:
        cells = [] if view.match is None else [bar(percent(view.match), view.match, "s0")]
        cells += [
            bar(signed(view.similarity, 3), max(0.0, view.similarity), "s0"),
            bar(f"{view.distance:.3f}", share_of(view.distance, furthest), "s2"),
            spread.bar(view.uncertainty),
            balance(view.image_in_caption, most),
        ]
        rows.append((view.caption, cells))
    rank = ""
    if found.more_certain is not None:
        rank = f"; {percent(found.more_certain, 0)} of the images in the data set are more certain"
    return block(
        f"The image's own uncertainty is {found.uncertainty:#.4g}{rank}. The nearest caption comes first. The "
        "sampled distance is the distance of the means plus both uncertainties. H says which of the two is wider, not "
        "whether they belong together.",
        table(heads, rows),
    )


def paired(pair: Pair, scale: Range) -> str:
    """Render two captions compared with each other."""
    spread = Spread(scale, [pair.first.uncertainty, pair.second.uncertainty])
    most = abs(pair.first_in_second)
    rows = [
        (
            view.caption,
            [
                spread.bar(view.uncertainty),
                balance(inside, most),
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
    return block(
        f"The first caption is {percent(abs(change), 2)} {words} uncertain than the second. {inside}. Similarity of "
        f"the means: {signed(pair.similarity, 3)}; sampled distance: {pair.distance:.3f}. Longer captions tend to be "
        "more certain, so compare captions of equal length.",
        table(
            [
                _CAPTION,
                uncertain(scale),
                Head("inclusion H", "◂ contains the other | lies in the other ▸"),
                Head("length"),
            ],
            rows,
        ),
    )


def walked(stops: Sequence[Stop], root: str, scale: Range) -> str:
    """Render the captions between an image and the root."""
    spread = Spread(scale, [stop.view.uncertainty for stop in stops])
    most = max(abs(stop.view.image_in_caption) for stop in stops)
    rows = []
    for stop in stops:
        first = 100 * stop.first_step / stop.num_steps
        last = min(100.0, 100 * (stop.last_step + 1) / stop.num_steps)
        part = f"{first:.0f}–{last:.0f}\N{NO-BREAK SPACE}%" if first < last else "the end"
        cells = [segment(part, first, last), spread.bar(stop.view.uncertainty)]
        rows.append((stop.view.caption, [*cells, balance(stop.view.image_in_caption, most)]))
    return block(
        f"The query starts at the caption nearest to the image and moves in {stops[0].num_steps} steps towards "
        f"“{root}”. The table lists the captions nearest to it on the way. If the model has learnt the order, they "
        "become more general and more uncertain.",
        table([_CAPTION, Head("part of the way", "nearest caption to root"), uncertain(scale), _INSIDE], rows),
    )


def classified(found: Classified) -> str:
    """Render the classes of an image, and the prompts that each class prefers."""
    classes = "" if found.even is None else _probabilities(found, found.even, found.weighted)
    if found.weights is None:
        one = len(found.templates) == 1
        why = "there is only one template" if one else "this needs images of a data set: start with --shards"
        return classes + sentence(f"Prompts are not weighted: {why}.")
    return classes + _weighted_prompts(found, found.weights)


def _probabilities(found: Classified, even: Sequence[float], weighted: Sequence[float] | None) -> str:
    """Render the most probable classes, with even and with re-weighted prompts."""
    order = sorted(range(len(even)), key=lambda place: -(weighted or even)[place])[:10]
    heads, rows = [Head("class"), Head("even prompts")], []
    if weighted is not None:
        heads.append(Head("re-weighted prompts"))
    for place in order:
        cells = [bar(percent(even[place]), even[place], "s0")]
        if weighted is not None:
            cells.append(bar(percent(weighted[place]), weighted[place], "s1"))
        rows.append((found.names[place], cells))
    rest = f"; the first {len(order)} of {len(even)}" if len(order) < len(even) else ""
    heading = f"Probability of each class (a softmax as in the paper, not calibrated){rest}."
    return block(heading, table(heads, rows))


def _weighted_prompts(found: Classified, all_weights: Sequence[Sequence[float]]) -> str:
    """Render the prompts with the largest and the smallest weight of each class."""
    even = 1 / len(found.templates)
    rows = []
    largest = max(max(weights) for weights in all_weights)
    spread = Spread(None, [value for row in found.uncertainties for value in row])
    for name, weights, uncertainties in zip(found.names, all_weights, found.uncertainties, strict=True):
        places = range(len(weights))
        extremes = max(places, key=weights.__getitem__), min(places, key=weights.__getitem__)
        for word, place in zip(("prefers", "avoids"), extremes, strict=True):
            prompt = found.templates[place].replace("{}", name)
            cells = [
                Markup("{} “{}”").format(word, prompt),
                bar(percent(weights[place]), share_of(weights[place], largest), "s1", mark=share_of(even, largest)),
                spread.bar(uncertainties[place]),
            ]
            rows.append((name if word == "prefers" else "", cells))
    heads = [
        Head("class"),
        Head("prompt"),
        Head("weight", f"the mark is an even weight, {percent(even)}"),
        Head("uncertainty", reading("prompt")),
    ]
    return block(
        f"The {len(found.templates)} prompts of each class are weighted by how well they fit the nearest images of the "
        "data set (Bayesian prompt re-weighting). Shown are the prompts that a class prefers most and least.",
        table(heads, rows),
    )


def ranked_captions(rows: Sequence[tuple[str, float]], heading: str, scale: Range) -> str:
    """Render captions with their uncertainty, below a heading."""
    spread = Spread(scale, [value for _, value in rows])
    body = [(caption, [spread.bar(value)]) for caption, value in rows]
    return block(heading, table([_CAPTION, uncertain(scale)], body))


def ranked_images(cards: Sequence[tuple[str, str, float]], heading: str, scale: Range) -> str:
    """Render images (URI, name, uncertainty) as cards, below a heading."""
    spread = Spread(scale, [value for *_, value in cards])
    shown = Markup("").join(
        Markup('<li><img src="{}" alt="{}">{}{}</li>').format(uri, name, name, spread.bar(value))
        for uri, name, value in cards
    )
    return block(f"{heading} Uncertainties: {reading(scale.of)}.", Markup('<ul class="cards">{}</ul>').format(shown))
