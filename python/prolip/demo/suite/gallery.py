"""Examples of the trained model for the report, chosen by position or by rank, never by hand."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prolip.demo.data.captions import LEVELS
from prolip.demo.suite.emoji_samples import EmbeddedCaptions, LabelledImages, evenly_spaced
from prolip.demo.suite.measure_sets import correct_pairs, retrieval_caption
from prolip.demo.suite.results import ChainExample, Gallery, GalleryImage, RankedCaption, ScoredCaption
from prolip.metrics.retrieval import rank_candidates, retrieval_scores
from prolip.metrics.statistics import rank_of_first_correct
from prolip.metrics.uncertainty import similarity_std

NUM_IMAGES = 8
"""Images per set to show with their captions."""
NUM_EXTREME = 12
NUM_CAPTIONS = 3
NUM_CHAINS = 6


def make_gallery(sets: Sequence[LabelledImages], captions: EmbeddedCaptions) -> Gallery:
    """Choose examples from the first set (a trained design) and the last (the held-out design)."""
    first, last = sets[0], sets[-1]
    views = {one.name: _SetView(one, captions) for one in (first, last)}
    shown = [view.example(place) for view in views.values() for place in evenly_spaced(len(view.samples), NUM_IMAGES)]
    extreme = views[last.name]
    order = extreme.uncertainty.argsort(stable=True).tolist()
    names = sorted({retrieval_caption(sample) for sample in first.samples})
    caption_uncertainty = captions.total_var(names) / extreme.median_caption
    caption_order = caption_uncertainty.argsort(stable=True).tolist()
    ranked = [
        RankedCaption(text=names[place], uncertainty=float(caption_uncertainty[place])) for place in caption_order
    ]
    return Gallery(
        pictures=shown,
        most_certain=[extreme.example(place) for place in order[:NUM_EXTREME]],
        least_certain=[extreme.example(place) for place in reversed(order[-NUM_EXTREME:])],
        most_certain_captions=ranked[:NUM_EXTREME],
        least_certain_captions=ranked[: -NUM_EXTREME - 1 : -1],
        chains=[_chain(first, place, captions) for place in evenly_spaced(len(first.samples), NUM_CHAINS, offset=0.25)],
    )


class _SetView:
    """Scores of a set's images against the names of all its images."""

    def __init__(self, labelled: LabelledImages, captions: EmbeddedCaptions) -> None:
        self.name, self.images, self.samples = labelled
        self.texts = [retrieval_caption(sample) for sample in self.samples]
        self.gaussian = captions.of(self.texts)
        self.caption_uncertainty = self.gaussian.total_var.double()
        self.median_caption = float(self.caption_uncertainty.median())
        self.uncertainty: Tensor = self.images.total_var.double()
        self.correct = correct_pairs(self.samples)

    def example(self, place: int) -> GalleryImage:
        """Return an image with its nearest captions, without duplicates."""
        sample, row = self.samples[place], slice(place, place + 1)
        image = self.images.rows(row)
        scores = retrieval_scores(image, self.gaussian)
        best: list[int] = []
        for candidate in rank_candidates(scores)[0].tolist():
            if all(self.texts[candidate] != self.texts[chosen] for chosen in best):
                best.append(candidate)
            if len(best) == NUM_CAPTIONS:
                break
        chosen = torch.tensor(best)
        nearest = self.gaussian.rows(chosen)
        similarity = (image.mean @ nearest.mean.T)[0]
        spread = similarity_std(image, nearest)[0]
        return GalleryImage(
            set_name=self.name,
            key=sample.key,
            emoji=sample.emoji,
            name=sample.name,
            uncertainty=float(self.uncertainty[place] / self.uncertainty.median()),
            captions=[
                ScoredCaption(
                    text=self.texts[candidate],
                    similarity=float(similarity[i]),
                    similarity_std=float(spread[i]),
                    uncertainty=float(self.caption_uncertainty[candidate]) / self.median_caption,
                    correct=bool(self.correct[place, candidate]),
                )
                for i, candidate in enumerate(best)
            ],
            rank=int(rank_of_first_correct(scores, self.correct[row])[0]) + 1,
        )


def _chain(labelled: LabelledImages, place: int, captions: EmbeddedCaptions) -> ChainExample:
    sample = labelled.samples[place]
    texts = [sample.captions[level][0] for level in LEVELS]
    uncertainty = captions.total_var(texts)
    return ChainExample(
        set_name=labelled.name,
        key=sample.key,
        emoji=sample.emoji,
        captions=texts,
        uncertainty=(uncertainty / uncertainty[0]).tolist(),
    )
