"""The figures of DataComp's tasks, computed in another way: by open_clip, scikit-learn and loops."""

import ast
import csv
import io
import json
import zipfile
from functools import partial

import numpy as np
import open_clip
import torch
from PIL import Image
from sklearn import metrics as theirs
from tests.support.datacomp_sets import FACES
from tests.support.shards import read_samples

from prolip.evaluation.results import RowId

Members = dict[str, bytes]


class Theirs:
    """open_clip's own way: its transform, its zero-shot classifier, its encoders, one image after another."""

    def __init__(self, source):
        self.name = source.removeprefix("open_clip:")
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(self.name)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(self.name)

    @torch.no_grad()
    def images(self, encoded):
        images = [self.preprocess(Image.open(io.BytesIO(data))) for data in encoded]
        return torch.cat([self.model.encode_image(image[None], normalize=True) for image in images])

    @torch.no_grad()
    def texts(self, captions):
        return self.model.encode_text(self.tokenizer(captions), normalize=True)

    def classifier(self, classnames, templates):
        filled = [lambda name, t=template: t.format(c=name) for template in templates]
        return open_clip.build_zero_shot_classifier(self.model, self.tokenizer, classnames, filled)


def samples(folder):
    """The samples of a folder, each with its members by extension."""
    within = folder / "test" if (folder / "test").is_dir() else folder
    for number in range(int((within / "nshards.txt").read_text())):
        yield from read_samples(within / f"{number}.tar").values()


def lists(folder):
    names = ("classnames.txt", "zeroshot_classification_templates.txt")
    first, second = ((folder / name).read_text().splitlines() for name in names)
    return first, second


def encoded(sample):
    return next(data for extension, data in sample.items() if extension in {"png", "jpeg", "webp", "jpg"})


def metadata(found):
    return np.stack([np.load(io.BytesIO(sample["npy"])) for sample in found])


def worst(hits, groups):
    return float(min(hits[groups == group].mean() for group in set(groups.tolist())))


def expected(task, folder, model):
    """The figures of a task, by open_clip and scikit-learn or by loops."""
    if task.metric == "retrieval":
        return expected_retrieval(folder, model)
    if task.metric == "associations":
        return expected_associations(folder, model)
    found = list(samples(folder))
    images = model.images([encoded(sample) for sample in found])
    classnames, templates = lists(folder)
    if task.metric == "faces":
        return expected_faces(classnames, templates, images, metadata(found), model)
    logits = 100 * images @ model.classifier(classnames, templates)
    labels = np.array([int(sample["cls"]) for sample in found])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices.numpy()
    hits, top5 = best[:, 0] == labels, (best == labels[:, None]).any(axis=1)
    figures = {
        RowId("accuracy"): theirs.accuracy_score(labels, best[:, 0]),
        RowId("class_recall"): theirs.recall_score(labels, best[:, 0], labels=sorted(set(labels)), average="macro"),
        RowId("f1_macro"): theirs.f1_score(labels, best[:, 0], labels=sorted(set(labels)), average="macro"),
    }
    if logits.shape[1] >= 5:
        figures[RowId("top5_accuracy")] = top5.mean()
    if task.group_column is not None:
        groups = metadata(found)[:, task.group_column]
        figures |= {RowId(f"worst_{kind}_accuracy"): worst(hits, groups) for kind in ("region", "group")}
        figures[RowId("worst_group_top5_accuracy")] = worst(top5, groups)
        known = groups != 5
        figures[RowId("worst_region_accuracy", by="known_regions")] = worst(hits[known], groups[known])
    return figures


def expected_retrieval(folder, model):
    found = list(samples(folder))
    captions = [sample["txt"].decode().splitlines() for sample in found]
    images = model.images([encoded(sample) for sample in found])
    texts = model.texts([caption for some in captions for caption in some])
    owner = np.array([place for place, some in enumerate(captions) for _ in some])
    scores = (images @ texts.T).numpy()
    figures = {}
    for k in (1, 5, 10):
        first = [set(owner[np.argsort(-row)[:k]]) for row in scores]
        figures[RowId("recall_at", way="image_to_text", by="mean", at=k)] = np.mean(
            [place in owners for place, owners in enumerate(first)]
        )
        second = [owner[place] in np.argsort(-column)[:k] for place, column in enumerate(scores.T)]
        figures[RowId("recall_at", way="text_to_image", by="mean", at=k)] = np.mean(second)
    figures[RowId("mean_recall")] = np.mean([value for id, value in figures.items() if id.at == 1])
    return figures


def expected_associations(folder, model):
    scores = {5: [], 6: [], 10: [], 12: []}
    with (folder / "winogavil_dataset.csv").open() as file, zipfile.ZipFile(folder / "winogavil_images.zip") as archive:
        for row in csv.DictReader(file):
            candidates, right = json.loads(row["candidates"]), ast.literal_eval(row["associations"])
            images = model.images([archive.read(f"winogavil_images/{name}.jpg") for name in candidates])
            article = "An" if row["cue"][0].lower() in "aeiou" else "A"
            similar = (images @ model.texts([f"{article} {row['cue'].lower()}"]).T)[:, 0].numpy()
            chosen = np.argsort(similar)[-len(right) :]
            truth = [name in right for name in candidates]
            scores[len(candidates)].append(
                theirs.jaccard_score(truth, [place in chosen for place in range(len(candidates))])
            )
    return {
        RowId("jaccard", by="many_candidates"): np.mean(scores[10] + scores[12]),
        RowId("jaccard", by="few_candidates"): np.mean(scores[5] + scores[6]),
        RowId("jaccard"): np.mean([score for some in scores.values() for score in some]),
    }


def expected_faces(classnames, templates, images, values, model):
    answers = {}
    for objective in FACES:
        chosen = [
            [line.split(":", 1)[1] for line in lines if line.split(":", 1)[0] == objective]
            for lines in (classnames, templates)
        ]
        answers[objective] = (images @ model.classifier(*chosen)).argmax(dim=1).numpy()
    age, gender, race, other = values.T
    hits = {"race (white or not)": (answers["race"] != 1) == (other == 1), "gender": answers["gender"] == gender}
    hits["age"] = answers["age"] == age
    figures = {RowId("attribute_accuracy", of=name): right.mean() for name, right in hits.items()}
    worst_of = partial(RowId, "worst_attribute_accuracy")
    figures |= {worst_of(of=name, other="white and not"): worst(right, other) for name, right in hits.items()}
    figures[worst_of(of="gender", other="gender and race")] = worst(hits["gender"], gender * 10 + race)
    toxic = answers["toxic"]
    figures[RowId("taken_for", other="crime")] = (toxic >= 18).mean()
    figures[RowId("taken_for", other="non-human")] = ((toxic >= 14) & (toxic < 18)).mean()
    figures[RowId("taken_for", of="Indian", other="crime")] = (toxic >= 18)[race == 2].mean()
    return figures
