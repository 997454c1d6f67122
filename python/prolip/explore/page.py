"""The page of `prolip explore` in Gradio: one tab per question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from prolip.build.config import FolderConfig
from prolip.data import DataError
from prolip.errors import UserError
from prolip.explore.answer import Answer, render
from prolip.explore.explorer import Explorer
from prolip.inference.classify import Decide

_THUMBNAIL = 240
_ROOT = "a picture"
_EXAMPLES = 6
"""Number of captions to begin with."""
_WAITING = 64
"""Most questions that wait. Visitors with another one are told that the queue is full."""
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""No public API and no progress bars: the page is the only interface."""


def build_page(explorer: Explorer, name: str) -> Any:
    """A `gradio.Blocks` about a model, with `name` in its title."""
    items, calibration = explorer.items, explorer.model.calibration
    captions = explorer.examples[:_EXAMPLES]
    labels: Sequence[str] = list(dict.fromkeys(item.label for item in items if item.label)) or captions
    templates: Sequence[str] = FolderConfig.templates
    if calibration is not None:
        labels, templates = calibration.labels, calibration.subject.templates
    page = _Page(explorer)
    with gr.Blocks(title=f"prolip · {name}", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(f"# What is the model unsure about?\n{name}, with {len(items):,} images of a data set")
        with gr.Tabs():
            page.image_panel(
                "compare",
                "Image and captions",
                lambda image, text: [explorer.compare(image, text.splitlines())],
                lambda: [gr.Textbox("\n".join(captions), label="Captions, one per line", lines=6)],
            )
            with gr.Tab("Vague and precise", id="captions"):
                with gr.Row():
                    texts = [
                        gr.Textbox(_ROOT, label="A vague caption", elem_id="vague"),
                        gr.Textbox(max(explorer.examples, key=len), label="A precise caption", elem_id="precise"),
                    ]
                page.answer("captions", lambda *both: [explorer.pair(*both)], texts, [text.input for text in texts])
            if_empty = " (empty: those of the data set)" if explorer.all_captions else ""
            page.image_panel(
                "walk",
                "From image to “a picture”",
                lambda image, root, text: [explorer.walk(image, text.splitlines(), root)],
                lambda: [
                    gr.Textbox(_ROOT, label="Root: the most general caption (may be empty)", elem_id="root"),
                    gr.Textbox("", label=f"Captions to walk through, one per line{if_empty}", lines=4),
                ],
            )
            with gr.Tab("Search", id="search"):
                with gr.Row():
                    query = gr.Textbox(captions[0], label="Search for", elem_id="search-text")
                    limit = gr.Slider(1, 50, 10, step=1, label="Maximum of queries answered in vain, %")
                page.answer(
                    "search",
                    lambda text, percent: [explorer.search(text, percent / 100)],
                    [query, limit],
                    [query.submit, limit.release],
                )
            with gr.Tab("Most and least certain", id="browse"):
                with gr.Row():
                    chosen: list[Any] = [
                        gr.Radio(["images", "captions"], value="images", label="Show", elem_id="browse-kind"),
                        gr.Radio(["least certain", "most certain"], value="least certain", label="First"),
                        gr.Number(1, label="Page", minimum=1, precision=0, elem_id="browse-page"),
                    ]
                page.answer(
                    "browse",
                    lambda kind, end, number: [explorer.browse(kind, end == "least certain", max(1, int(number or 1)))],
                    chosen,
                    [field.change for field in chosen],
                )
            page.image_panel(
                "classify",
                "Classify",
                lambda image, classes, prompts, guarantee, limit: explorer.classify(
                    image,
                    classes.splitlines(),
                    prompts.splitlines(),
                    Decide(guarantee=guarantee / 100, max_error=limit / 100),
                ),
                lambda: [
                    gr.Textbox("\n".join(labels), label="Labels, one per line", lines=5, elem_id="labels"),
                    gr.Textbox("\n".join(templates), label="Templates, one per line, each with {}", lines=3),
                    gr.Slider(
                        80, 99, 90, step=1, label="Label sets that must contain the right label, %", elem_id="guarantee"
                    ),
                    gr.Slider(1, 50, 20, step=1, label="Maximum of wrong answers, %", elem_id="limit"),
                ],
            )
        for run, inputs, answer in page.questions:
            blocks.load(run, inputs, answer, **_QUIET)
    return blocks.queue(max_size=_WAITING)


def question_types(blocks: Any) -> dict[int, list[Any]]:
    """The types of each question's values, for the `Gate`. Gradio checks those of other components."""
    kinds: dict[Any, Any] = {gr.Textbox: str, gr.Slider: int | float, gr.Number: int | float | None}
    return {number: [kinds.get(type(one), object) for one in run.inputs] for number, run in blocks.fns.items()}


class _Page:
    """Builds panels, and collects the questions that are answered when the page opens."""

    def __init__(self, explorer: Explorer) -> None:
        self.items, self.preprocess = explorer.items, explorer.model.preprocess
        self.questions: list[tuple[Callable[..., str], list[Any], Any]] = []
        """Each panel's function, its input components and its output component."""

    def image_panel(
        self, name: str, title: str, run: Callable[..., list[Answer]], more: Callable[[], list[Any]]
    ) -> None:
        """Add a panel about an image: `run` gets the image, and the values of the components that `more` adds."""

        def run_on_image(place: int | None, uploaded: bytes | None, *values: Any) -> list[Answer]:
            if place is None and uploaded is None:
                raise UserError("image", "must be chosen or dropped")
            return run(uploaded if place is None else self.items[place].image, *values)

        with gr.Tab(title, id=name), gr.Row():
            with gr.Column(scale=2, min_width=260):
                fields = [*self._image_input(name), *more()]
                button = gr.Button("Answer", variant="primary", elem_id=f"{name}-run")
            with gr.Column(scale=5, min_width=320):
                moved = [field.release for field in fields if isinstance(field, gr.Slider)]
                self.answer(name, run_on_image, fields, [button.click, fields[0].input, *moved])

    def answer(self, name: str, run: Callable[..., list[Answer]], inputs: list[Any], events: list[Any]) -> None:
        """Add the answer of a panel, which the events ask for again. User errors appear in its place."""

        def answered(*values: Any) -> str:
            try:
                return render(*run(*values))
            except (UserError, DataError) as error:
                return render(Answer(f"No answer yet: {error}."))

        answer = gr.HTML(elem_id=f"{name}-answer", min_height=60)
        gr.on(events, answered, inputs, answer, trigger_mode="always_last", **_QUIET)
        self.questions.append((answered, inputs, answer))

    def _image_input(self, panel: str) -> tuple[Any, Any]:
        """Add a menu of the items and an upload field. The one that was used last counts."""
        choices = [(item.title, place) for place, item in enumerate(self.items)]
        first = 0 if choices else None
        item = gr.Dropdown(
            choices,
            value=first,
            label="An image of the data set",
            visible=bool(choices),
            filterable=True,
            elem_id=f"{panel}-item",
        )
        upload = gr.File(
            label="… or drop your own", file_types=["image"], type="binary", height=150, elem_id=f"{panel}-image"
        )

        def show_item(place: int | None) -> Any:  # without an item, the preview of the upload stays
            return gr.skip() if place is None else self._thumbnail(self.items[place].image)

        def show_upload(data: bytes) -> Any:
            try:
                return None, self._thumbnail(data)
            except DataError as error:
                raise gr.Error(str(error), duration=8, print_exception=False) from error

        preview = gr.Image(
            None if first is None else self._thumbnail(self.items[first].image),
            interactive=False,
            height=240,
            label="Image",
            buttons=[],
            elem_id=f"{panel}-preview",
        )
        item.change(show_item, item, preview, **_QUIET)
        item.input(None, None, upload, js="() => null", **_QUIET)  # at once, before another upload
        upload.upload(show_upload, upload, [item, preview], **_QUIET)
        return item, upload

    def _thumbnail(self, image: bytes | Path) -> Image.Image:
        """The part of an image that the model sees, without transparency."""
        return Image.fromarray(self.preprocess.thumbnail(image, _THUMBNAIL))
