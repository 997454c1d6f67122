"""Find the embedded images or captions nearest to text and image queries (`prolip search`). Q queries, D dimensions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from prolip.decisions.config import NO_CSD
from prolip.embeddings.config import SearchOptions
from prolip.embeddings.contact_sheet import SIDE, Cell, Row, contact_sheet
from prolip.embeddings.row_contents import Contents, Name, Pixels, fetch, fetch_local
from prolip.embeddings.search import Answer, answers_json, answers_table, look_up, nearest
from prolip.embeddings.storage import Manifest, complete_parts
from prolip.errors import UserError, check_at_least
from prolip.files import check_writable, write_atomic
from prolip.gaussian import Gaussian, concatenate
from prolip.models.open_clip import StartError
from prolip.models.weights import WeightsError
from prolip.pretrained.model import Model, weights_digest
from prolip.pretrained.open import load
from prolip.pretrained.preprocess import Preprocess, check_image_file


def run_search(options: SearchOptions) -> list[str]:
    """Search, write the files, and return the lines to print.

    Raises:
        UserError: there is no query, the embeddings are not finished or from another model, or a file is not an image.
        OSError: the sheet cannot be written; see `check_writable`.
    """
    if not options.text and not options.image:
        raise UserError("nothing to search for: give a text (--text) or an image (--image)")
    check_at_least(1, k=options.k)
    if options.sheet is not None:
        check_writable(options.sheet)
    for path in options.image:
        check_image_file(path)
    other = "text" if options.find == "image" else "image"
    manifest, parts = complete_parts(options.embeddings, options.find, instead=f"search them with --find {other}")
    if manifest.epistemic and options.score == "csd":
        raise UserError(f"score is csd: {NO_CSD}; leave --score out")
    score = options.score or ("mean" if manifest.epistemic else "csd")
    queries = embed_queries(open_embedder(options, manifest), options.text, options.image)
    titles = [*options.text, *map(str, options.image)]
    answers = look_up(
        parts,
        nearest(parts, queries.mean.numpy(), options.k, score),
        queries,
        has_variances=manifest.has_variances,
    )
    names = sorted({(answer.source, answer.key) for found in answers for answer in found})
    caption_key = manifest.settings["caption_key"]
    if options.sheet is not None or options.find == "text":
        contents = fetch(names, None if options.sheet is None else SIDE, options.store, caption_key)
    else:  # only from this machine, since a remote shard would have to be downloaded
        contents = fetch_local(names, options.store, caption_key)
    answers = [[_described(answer, contents) for answer in found] for found in answers]
    if options.sheet is not None:
        shown = [None] * len(options.text) + [_thumbnail(path) for path in options.image]
        title = f"{options.embeddings.name}: nearest by {score}"
        write_atomic(options.sheet, search_sheet(title, titles, shown, answers, contents))
    if options.json:
        return [json.dumps(answers_json(titles, answers), indent=1, ensure_ascii=False)]
    lines: list[str] = []
    for title, found in zip(titles, answers, strict=True):
        lines += [*answers_table(title, found), ""]
    return lines[:-1]


def _described(answer: Answer, contents: Mapping[Name, Contents]) -> Answer:
    """Return the result with its caption and its file name, if they were fetched."""
    found = contents.get((answer.source, answer.key))
    return answer if found is None else answer._replace(caption=found.caption, file=found.file)


def open_embedder(options: SearchOptions, manifest: Manifest) -> Model:
    """Open the model that made the embeddings.

    Raises:
        UserError: the model cannot be opened, or has other weights.
    """
    source = options.checkpoint or manifest.checkpoint
    try:
        model = load(source, tokenizer=options.tokenizer or manifest.tokenizer, device=options.device)
    except (StartError, WeightsError) as error:
        if options.checkpoint is not None:
            raise
        # As it was named then: a relative path may not lead there from the current folder.
        raise UserError(
            f"{options.embeddings} was embedded with {source}: {error}; name it with --checkpoint"
        ) from error
    if weights_digest(model.network) != manifest.weights:
        raise UserError(f"checkpoint: {source} is not the model that {options.embeddings} was embedded with")
    return model


def embed_queries(model: Model, texts: Sequence[str], images: Sequence[Path]) -> Gaussian:
    """Embed the queries, texts first, [Q, D] on the CPU.

    Raises:
        UserError, DataError: a file is not an image.
    """
    found = [model.encode_texts(texts, progress=False)] if texts else []
    if images:
        pixels = torch.stack([model.preprocess(path) for path in images])
        found.append(model.encode_images(pixels, progress=False))
    return concatenate(found)


def _thumbnail(path: Path) -> Pixels:
    """Return a query's image for the sheet, u8 [SIDE, SIDE, 3]."""
    return Preprocess(size=(SIDE, SIDE)).decode(path, str(path)).numpy()


def _cell(rank: int, answer: Answer, contents: Contents | None) -> Cell:
    lines = [f"score {answer.score:.4f}, similarity {answer.similarity:.4f}"]
    if answer.uncertainty is not None and answer.inclusion is not None:
        lines.append(f"uncertainty {answer.uncertainty:.5f}, inclusion {answer.inclusion:.2f}")
    return Cell(f"{rank}. {answer.key}", contents, [*lines, answer.source])


def search_sheet(
    title: str,
    titles: Sequence[str],
    images: Sequence[Pixels | None],
    answers: Sequence[Sequence[Answer]],
    contents: Mapping[Name, Contents],
) -> str:
    """Return a contact sheet of the results, with one row per query."""
    rows = []
    for query, image, found in zip(titles, images, answers, strict=True):
        ranked = enumerate(found, start=1)
        cells = [_cell(rank, answer, contents.get((answer.source, answer.key))) for rank, answer in ranked]
        rows.append(Row(query, image, cells))
    return contact_sheet(title, rows)
