"""The page of `prolip explore` in Gradio: one tab per question. What the user enters is kept in the page's address."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from PIL import Image

from prolip.data import DataError, preprocess_image
from prolip.embeddings.contact_sheet import SIDE, data_uri
from prolip.errors import UserError
from prolip.evaluation.templates import PLAIN_TEMPLATES
from prolip.explore import show
from prolip.explore.drawing import sentence
from prolip.explore.explorer import Explorer
from prolip.explore.items import Item
from prolip.explore.show_reliance import relied_on
from prolip.pretrained.classify import Decide

PANELS = ("compare", "captions", "walk", "browse", "classify", "rely")
"""Names of the tabs in the address."""
PER_PAGE = 24
_THUMBNAIL = 240
_CAPTIONS = ("a picture", "a picture of an animal", "a picture of food")
_CLASSES = ("animal", "food", "person", "vehicle", "flag")


def build_page(explorer: Explorer, name: str) -> Any:
    """Build the page of a model, a `gradio.Blocks`, with `name` in its title."""
    page = _Page(explorer)
    with gr.Blocks(title=f"prolip · {name}", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(f"# What is the model unsure about?\n{name}, with {len(explorer.items):,} items of a data set")
        with gr.Tabs() as tabs:
            page.compare()
            page.captions()
            page.walk()
            page.browse()
            page.classify()
            page.rely()
        page.sync_address(blocks, tabs)
    return blocks


class _Page:
    """Builds the panels, and collects the components whose values belong in the address."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.fields: dict[str, Any] = {}
        """Components by their name in the address."""
        self.runs: list[tuple[Callable[..., Any], list[Any], Any]] = []
        """Each panel's function, its input components and its output component."""

    def compare(self) -> None:
        """Add the panel that compares an image with captions."""

        def run(item: str | None, uploaded: bytes | None, captions: str) -> str:
            result = self.explorer.compare(self._image_data(item, uploaded), captions.splitlines())
            return show.compared(result, self.explorer.caption_range())

        with self._image_panel("compare", "Image and captions", "Compare", run) as fields:
            fields["captions"] = gr.Textbox(self._example_captions(), label="Captions, one per line", lines=6)

    def captions(self) -> None:
        """Add the panel that compares a vague and a precise caption while the user types."""
        with gr.Tab("Vague and precise", id="captions"):
            with gr.Row():
                vague = gr.Textbox("an animal", label="A vague caption", elem_id="vague")
                precise = gr.Textbox("a blowfish in the sea", label="A precise caption", elem_id="precise")
            answer = gr.HTML(elem_id="captions-answer", min_height=60)

            def run(first: str, second: str) -> str:
                return show.paired(self.explorer.pair(first, second), self.explorer.caption_range())

            typed = _error_in_place(run)
            self.runs.append((typed, [vague, precise], answer))
            gr.on([vague.input, precise.input], typed, [vague, precise], answer, trigger_mode="always_last", **_QUIET)
            self.fields |= {"vague": vague, "precise": precise}

    def walk(self) -> None:
        """Add the panel that walks from an image to the root."""

        def run(item: str | None, uploaded: bytes | None, root: str, pool: str) -> str:
            lines = pool.splitlines() if pool.strip() else None
            stops = self.explorer.walk(self._image_data(item, uploaded), lines, root)
            return show.walked(stops, root.strip(), self.explorer.caption_range())

        if_empty = " (empty: those of the data set)" if self.explorer.all_captions else ""
        with self._image_panel("walk", "From image to “a picture”", "Walk", run) as fields:
            fields["root"] = gr.Textbox("a picture", label="Root: the most general caption", elem_id="root")
            fields["pool"] = gr.Textbox("", label=f"Captions to walk through, one per line{if_empty}", lines=4)

    def browse(self) -> None:
        """Add the panel of the most and the least certain items."""
        with gr.Tab("Most and least certain", id="browse"):
            with gr.Row():
                kind = gr.Radio(["images", "captions"], value="images", label="Show", elem_id="browse-kind")
                end = gr.Radio(
                    ["least certain", "most certain"], value="least certain", label="First", elem_id="browse-end"
                )
                number = gr.Number(1, label="Page", minimum=1, precision=0, elem_id="browse-page")
            answer = gr.HTML(elem_id="browse-answer", min_height=60)

            def run(kind: str, end: str, number: float | None) -> str:
                return self._browsed(kind, end == "least certain", max(1, int(number or 1)))

            gr.on([kind.change, end.change, number.change], run, [kind, end, number], answer, **_QUIET)
            self.runs.append((run, [kind, end, number], answer))
            self.fields |= {"kind": kind, "end": end, "place": number}

    def classify(self) -> None:
        """Add the panel of a zero-shot classifier and its prompts."""

        def run(item: str | None, uploaded: bytes | None, classes: str, templates: str) -> str:
            image = self._image_data(item, uploaded) if item or uploaded else None
            return show.classified(self.explorer.classify(image, classes.splitlines(), templates.splitlines()))

        classes, templates = "\n".join(self._example_classes()), "\n".join(PLAIN_TEMPLATES)
        with self._image_panel("classify", "Classifier", "Classify", run) as fields:
            fields["classes"] = gr.Textbox(classes, label="Class names, one per line", lines=5, elem_id="classes")
            fields["templates"] = gr.Textbox(
                templates, label="Templates, one per line, each with {}", lines=3, elem_id="templates"
            )

    def rely(self) -> None:
        """Add the panel of label sets, "don't know" and both kinds of doubt."""

        def run(item: str | None, uploaded: bytes | None, labels: str, guarantee: float, limit: float) -> str:
            decide = Decide(guarantee=guarantee / 100, max_error=limit / 100)
            return relied_on(self.explorer.rely(self._image_data(item, uploaded), labels.splitlines(), decide))

        calibration = self.explorer.model.calibration
        labels = self._example_classes() if calibration is None else calibration.labels
        with self._image_panel("rely", "What can I rely on", "Decide", run, at_once=True) as fields:
            fields["labels"] = gr.Textbox("\n".join(labels), label="Labels, one per line", lines=5, elem_id="labels")
            fields["guarantee"] = gr.Slider(
                80, 99, 90, step=1, label="The set contains the right label in at least, %", elem_id="guarantee"
            )
            fields["limit"] = gr.Slider(1, 50, 20, step=1, label="Wrong answers at most, %", elem_id="limit")

    def sync_address(self, blocks: gr.Blocks, tabs: gr.Tabs) -> None:
        """Keep the open panel and its inputs in the page's address, and restore them from it."""
        names, components = list(self.fields), list(self.fields.values())
        panel = gr.Textbox("compare", visible="hidden")

        def restore(request: gr.Request) -> list[Any]:
            given = dict(request.query_params)
            chosen = given.get("panel")
            values = [self._value_from_address(name, given.get(name)) for name in names]
            # Without a panel in the address, leave the tabs alone: the user may have opened one already.
            tab = [gr.Tabs(selected=chosen), chosen] if chosen in PANELS else [gr.skip(), gr.skip()]
            return [*tab, *values]

        loaded = blocks.load(restore, None, [tabs, panel, *components], **_QUIET)
        for run, inputs, outputs in self.runs:
            loaded.then(run, inputs, outputs, **_QUIET)

        def selected(event: gr.SelectData) -> str:
            return PANELS[int(event.index)]

        write = f"""(panel, ...values) => {{
          const defaults = {json.dumps([component.value for component in components])};
          const names = {json.dumps(names)}, address = new URL(window.location);
          address.searchParams.set("panel", panel);
          names.forEach((name, place) => {{
            if (values[place] === defaults[place] || values[place] === null) address.searchParams.delete(name);
            else address.searchParams.set(name, values[place]);
          }});
          window.history.replaceState(null, "", address);
        }}"""
        tabs.select(selected, None, panel, **_QUIET).then(None, [panel, *components], None, js=write, **_QUIET)
        gr.on([component.change for component in components], None, [panel, *components], None, js=write, **_QUIET)

    # ---- shared by the panels ----

    @contextmanager
    def _image_panel(
        self, name: str, title: str, verb: str, run: Callable[..., str], *, at_once: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Add a panel about an image. Its inputs are the image and those that the block adds to the yielded dict.

        Args:
            name: the panel's name in the address. The dict's keys are those of its inputs.
            title: the tab's.
            verb: the button's text.
            run: returns the answer for the values of the inputs: the chosen item, the upload, and the others in order.
            at_once: also answer when a slider is moved or an item chosen, not only on the button.
        """
        with gr.Tab(title, id=name):
            fields: dict[str, Any] = {}
            with gr.Row():
                with gr.Column(scale=2, min_width=260):
                    item, upload = self._image_input(name)
                    yield fields
                    button = gr.Button(verb, variant="primary", elem_id=f"{name}-run")
                with gr.Column(scale=5, min_width=320):
                    answer = gr.HTML(elem_id=f"{name}-answer", min_height=60)
            inputs = [item, upload, *fields.values()]
            self.runs.append((_error_in_place(run), inputs, answer))
            button.click(_error_as_toast(run), inputs, answer, **_QUIET)
            if at_once:
                moved = [field.release for field in fields.values() if isinstance(field, gr.Slider)]
                in_place = _error_in_place(run)
                gr.on([*moved, item.input], in_place, inputs, answer, trigger_mode="always_last", **_QUIET)
        self.fields |= fields

    def _image_input(self, panel: str) -> tuple[Any, Any]:
        """Add a menu of the items and an upload field. The one that was used last counts."""
        keys = [(_label(item), item.key) for item in self.explorer.items]
        item = gr.Dropdown(
            keys,
            value=keys[0][1] if keys else None,
            label="An image of the data set",
            visible=bool(keys),
            filterable=True,
            elem_id=f"{panel}-item",
        )
        upload = gr.File(
            label="… or drop your own",
            file_types=["image"],
            type="binary",
            height=150,
            elem_id=f"{panel}-image",
        )
        preview = gr.Image(
            _thumbnail(self.explorer.items[0].image) if keys else None,
            interactive=False,
            height=240,
            label="Image",
            buttons=[],
            elem_id=f"{panel}-preview",
        )
        item.change(self._show_item, item, preview, **_QUIET)
        item.input(lambda: None, None, upload, **_QUIET)
        upload.upload(_error_as_toast(self._show_upload), upload, [item, preview], **_QUIET)
        self.fields[f"{panel}-item"] = item
        return item, upload

    def _show_item(self, key: str | None) -> Any:
        """Preview the chosen item. If none is chosen any more, the preview of the upload stays."""
        return gr.skip() if key is None else _thumbnail(self.explorer.by_key[key].image)

    def _show_upload(self, data: bytes) -> tuple[None, Image.Image]:
        """Clear the menu and preview the uploaded file, if the loader can decode it."""
        return None, _thumbnail(data)

    def _image_data(self, key: str | None, uploaded: bytes | None) -> bytes:
        """Return the encoded image of the chosen item or of the upload."""
        if key is not None:
            return self.explorer.by_key[key].image
        if uploaded is None:
            raise UserError("choose an image, or drop one")
        return uploaded

    def _example_captions(self) -> str:
        first = list(self.explorer.items[0].captions) if self.explorer.items else []
        return "\n".join(dict.fromkeys([*first, *_CAPTIONS]))

    def _example_classes(self) -> list[str]:
        """Return the captions that most items share, or default classes."""
        last = Counter(item.captions[-1] for item in self.explorer.items if item.captions)
        shared = [caption for caption, count in last.most_common(9) if count > 1]
        return shared if len(shared) > 1 else list(_CLASSES)

    def _browsed(self, kind: str, least: bool, number: int) -> str:
        image_range = self.explorer.image_range()
        if image_range is None:
            return sentence("There is no data set to browse: start with --shards.")
        ranking: list[Any] = self.explorer.ranked_images() if kind == "images" else self.explorer.ranked_captions()
        first, pages = PER_PAGE * (number - 1), -(-len(ranking) // PER_PAGE)
        rows = (ranking[::-1] if least else ranking)[first : first + PER_PAGE]
        if not rows:
            last = f"the last page is {pages}" if pages else f"the data set has no {kind}"
            return sentence(f"There is no page {number}: {last}.")
        heading = f"Page {number} of {pages}: places {first + 1:,} to {first + len(rows):,} of {len(ranking):,}."
        if kind == "captions":
            return show.ranked_captions(rows, heading, self.explorer.caption_range())
        cards = [
            (_image_uri(item.image), item.captions[0] if item.captions else item.key, value) for item, value in rows
        ]
        return show.ranked_images(cards, heading, image_range)

    def _value_from_address(self, name: str, text: str | None) -> Any:
        """Return the update of a component to its value in the address; no update if that value is not valid."""
        component = self.fields[name]
        number = isinstance(component, gr.Number | gr.Slider)
        if number:
            largest = component.maximum or 10_000_000
            valid = text and re.fullmatch(r"[1-9]\d{0,6}", text) and component.minimum <= int(text) <= largest
            text = text if valid else None
        elif isinstance(component, gr.Dropdown | gr.Radio) and text not in {value for _, value in component.choices}:
            text = None
        return gr.skip() if text is None else gr.update(value=int(text) if number else text)


_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""No public API and no progress bars: the page is the only interface."""


def _error_as_toast(run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that user errors appear in a toast, without a traceback."""

    def wrapped(*values: Any) -> Any:
        try:
            return run(*values)
        except (UserError, DataError) as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from error

    return wrapped


def _error_in_place(run: Callable[..., str]) -> Callable[..., str]:
    """Wrap a function so that user errors appear in place of the answer: on opening the page, and while typing."""

    def wrapped(*values: Any) -> str:
        try:
            return run(*values)
        except (UserError, DataError) as error:
            return sentence(f"No answer yet: {error}.")

    return wrapped


def _label(item: Item) -> str:
    return f"{item.captions[0]} · {item.key}" if item.captions else item.key


def _thumbnail(data: bytes) -> Image.Image:
    """Return the part of an image that the model sees: the central square, without transparency."""
    return Image.fromarray(preprocess_image(data, _THUMBNAIL))


def _image_uri(data: bytes) -> str:
    return data_uri(preprocess_image(data, SIDE))
