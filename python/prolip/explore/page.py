"""The page: Gradio components around the explorer's questions. What a person wrote is kept in the address."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import gradio as gr
from PIL import Image

from prolip.data import DataError, preprocess_image
from prolip.embeddings.contact_sheet import SIDE, data_uri
from prolip.explore import show
from prolip.explore.explorer import Explorer
from prolip.explore.items import Item
from prolip.suites.templates import PLAIN_TEMPLATES

PANELS = ("compare", "captions", "walk", "browse", "classify")
"""The tabs, by the word in the address."""
PER_PAGE = 24
_THUMBNAIL = 240
_CAPTIONS = ("a picture", "a picture of an animal", "a picture of food")
_CLASSES = ("animal", "food", "person", "vehicle", "flag")


def build_page(explorer: Explorer, name: str) -> Any:
    """The page of a model, a `gradio.Blocks`; `name` says which in its head."""
    page = _Page(explorer)
    with gr.Blocks(title=f"prolip · {name}", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(f"# What is the model unsure about?\n{name}; {len(explorer.items):,} items of a data set")
        with gr.Tabs() as tabs:
            page.compare()
            page.captions()
            page.walk()
            page.browse()
            page.classify()
        page.keep_in_address(blocks, tabs)
    return blocks


class _Page:
    """The panels as they are built; each remembers what of it belongs into the address."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.kept: dict[str, Any] = {}
        """Components by their word in the address."""
        self.runs: list[tuple[Callable[..., Any], list[Any], Any]] = []
        """What answers a panel's question, of which components, into which."""

    def compare(self) -> None:
        """A picture beside captions."""
        with gr.Tab("Picture and captions", id="compare"):
            with gr.Row():
                with gr.Column(scale=2, min_width=260):
                    item, picture = self._picture("compare")
                    captions = gr.Textbox(self._example_captions(), label="Captions, one a line", lines=6)
                    button = gr.Button("Compare", variant="primary", elem_id="compare-run")
                with gr.Column(scale=5, min_width=320):
                    answer = gr.HTML(elem_id="compare-answer", min_height=60)

            def run(item: str | None, dropped: bytes | None, captions: str) -> str:
                found = self.explorer.compare(self._bytes(item, dropped), captions.splitlines())
                return show.compared(found, self.explorer.caption_range())

            self._asks(run, [item, picture, captions], answer, button)
            self.kept |= {"captions": captions}

    def captions(self) -> None:
        """A vague and a precise caption."""
        with gr.Tab("Vague and precise", id="captions"):
            with gr.Row():
                vague = gr.Textbox("an animal", label="A vague caption", elem_id="vague")
                precise = gr.Textbox("a blowfish in the sea", label="A precise one", elem_id="precise")
            answer = gr.HTML(elem_id="captions-answer", min_height=60)

            def run(first: str, second: str) -> str:
                return show.paired(self.explorer.pair(first, second), self.explorer.caption_range())

            # The variances move while one types.
            typed = _answered_in_place(run)
            self.runs.append((typed, [vague, precise], answer))
            gr.on([vague.input, precise.input], typed, [vague, precise], answer, trigger_mode="always_last", **_QUIET)
            self.kept |= {"vague": vague, "precise": precise}

    def walk(self) -> None:
        """From a picture to the root."""
        with gr.Tab("From picture to “a picture”", id="walk"):
            with gr.Row():
                with gr.Column(scale=2, min_width=260):
                    item, picture = self._picture("walk")
                    root = gr.Textbox("a picture", label="Root: the most general caption", elem_id="root")
                    pool = gr.Textbox(
                        "",
                        label="Captions that may be met, one a line"
                        + (" (empty: those of the data set)" if self.explorer.all_captions else ""),
                        lines=4,
                    )
                    button = gr.Button("Walk", variant="primary", elem_id="walk-run")
                with gr.Column(scale=5, min_width=320):
                    answer = gr.HTML(elem_id="walk-answer", min_height=60)

            def run(item: str | None, dropped: bytes | None, root: str, pool: str) -> str:
                lines = pool.splitlines() if pool.strip() else None
                stops = self.explorer.walk(self._bytes(item, dropped), lines, root)
                return show.walked(stops, root.strip(), self.explorer.caption_range())

            self._asks(run, [item, picture, root, pool], answer, button)
            self.kept |= {"root": root, "pool": pool}

    def browse(self) -> None:
        """The most and the least certain items."""
        with gr.Tab("Most and least certain", id="browse"):
            with gr.Row():
                kind = gr.Radio(["pictures", "captions"], value="pictures", label="What", elem_id="browse-kind")
                end = gr.Radio(
                    ["least certain", "most certain"], value="least certain", label="First", elem_id="browse-end"
                )
                number = gr.Number(1, label="Page", minimum=1, precision=0, elem_id="browse-page")
            answer = gr.HTML(elem_id="browse-answer", min_height=60)

            def run(kind: str, end: str, number: float | None) -> str:
                return self._browsed(kind, end == "least certain", max(1, int(number or 1)))

            gr.on([kind.change, end.change, number.change], run, [kind, end, number], answer, **_QUIET)
            self.runs.append((run, [kind, end, number], answer))
            self.kept |= {"kind": kind, "end": end, "place": number}

    def classify(self) -> None:
        """A zero-shot classifier and its prompts."""
        with gr.Tab("Classifier and prompts", id="classify"):
            with gr.Row():
                with gr.Column(scale=2, min_width=260):
                    item, picture = self._picture("classify")
                    classes = gr.Textbox(
                        "\n".join(self._example_classes()), label="Class names, one a line", lines=5, elem_id="classes"
                    )
                    templates = gr.Textbox(
                        "\n".join(PLAIN_TEMPLATES),
                        label="Templates, one a line, {} in each",
                        lines=3,
                        elem_id="templates",
                    )
                    button = gr.Button("Classify", variant="primary", elem_id="classify-run")
                with gr.Column(scale=5, min_width=320):
                    answer = gr.HTML(elem_id="classify-answer", min_height=60)

            def run(item: str | None, dropped: bytes | None, classes: str, templates: str) -> str:
                picture = self._bytes(item, dropped) if item or dropped else None
                return show.classified(self.explorer.classify(picture, classes.splitlines(), templates.splitlines()))

            self._asks(run, [item, picture, classes, templates], answer, button)
            self.kept |= {"classes": classes, "templates": templates}

    def keep_in_address(self, blocks: gr.Blocks, tabs: gr.Tabs) -> None:
        """The address says which panel is open and what was written in it; opening such an address brings it back."""
        names, components = list(self.kept), list(self.kept.values())
        panel = gr.Textbox("compare", visible="hidden")

        def opened(request: gr.Request) -> list[Any]:
            given = dict(request.query_params)
            chosen = given.get("panel")
            values = [self._given(name, given.get(name)) for name in names]
            # Without a panel in the address nothing is opened: somebody may have opened one already.
            tab = [gr.Tabs(selected=chosen), chosen] if chosen in PANELS else [gr.skip(), gr.skip()]
            return [*tab, *values]

        loaded = blocks.load(opened, None, [tabs, panel, *components], **_QUIET)
        for run, inputs, outputs in self.runs:
            loaded.then(run, inputs, outputs, **_QUIET)

        def selected(event: gr.SelectData) -> str:
            return PANELS[int(event.index)]

        write = f"""(panel, ...values) => {{
          const usual = {json.dumps([component.value for component in components])};
          const names = {json.dumps(names)}, address = new URL(window.location);
          address.searchParams.set("panel", panel);
          names.forEach((name, place) => {{
            if (values[place] === usual[place] || values[place] === null) address.searchParams.delete(name);
            else address.searchParams.set(name, values[place]);
          }});
          window.history.replaceState(null, "", address);
        }}"""
        tabs.select(selected, None, panel, **_QUIET).then(None, [panel, *components], None, js=write, **_QUIET)
        gr.on([component.change for component in components], None, [panel, *components], None, js=write, **_QUIET)

    # ---- shared by the panels ----

    def _asks(self, run: Callable[..., str], inputs: list[Any], answer: Any, button: Any) -> None:
        self.runs.append((_answered_in_place(run), inputs, answer))
        button.click(_answered(run), inputs, answer, **_QUIET)

    def _picture(self, panel: str) -> tuple[Any, Any]:
        """A choice among the items, and a place to drop a picture of one's own; the last of both counts."""
        keys = [(_label(item), item.key) for item in self.explorer.items]
        item = gr.Dropdown(
            keys,
            value=keys[0][1] if keys else None,
            label="A picture of the data set",
            visible=bool(keys),
            filterable=True,
            elem_id=f"{panel}-item",
        )
        dropped = gr.File(
            label="… or drop your own",
            file_types=["image"],
            type="binary",
            height=150,
            elem_id=f"{panel}-picture",
        )
        preview = gr.Image(
            _thumbnail(self.explorer.items[0].picture) if keys else None,
            interactive=False,
            height=240,
            label="Picture",
            buttons=[],
            elem_id=f"{panel}-preview",
        )
        item.change(self._show_item, item, preview, **_QUIET)
        item.input(lambda: None, None, dropped, **_QUIET)
        dropped.upload(_answered(self._show_dropped), dropped, [item, preview], **_QUIET)
        self.kept[f"{panel}-item"] = item
        return item, dropped

    def _show_item(self, key: str | None) -> Any:
        """Where none is chosen any more, the picture that was dropped stays."""
        return gr.skip() if key is None else _thumbnail(self.explorer.by_key[key].picture)

    def _show_dropped(self, data: bytes) -> tuple[None, Image.Image]:
        """The dropped file is what counts from now on, if our decoder finds a picture in it."""
        return None, _thumbnail(data)

    def _bytes(self, key: str | None, dropped: bytes | None) -> bytes:
        """An item's own bytes, or those of a dropped file."""
        if key is not None:
            return self.explorer.by_key[key].picture
        if dropped is None:
            raise ValueError("choose a picture, or drop one")
        return dropped

    def _example_captions(self) -> str:
        own = list(self.explorer.items[0].captions) if self.explorer.items else []
        return "\n".join(dict.fromkeys([*own, *_CAPTIONS]))

    def _example_classes(self) -> list[str]:
        """The captions that most items share, or some of our own."""
        last = Counter(item.captions[-1] for item in self.explorer.items if item.captions)
        shared = [caption for caption, count in last.most_common(9) if count > 1]
        return shared if len(shared) > 1 else list(_CLASSES)

    def _browsed(self, kind: str, least: bool, number: int) -> str:
        pictures = self.explorer.picture_range()
        if pictures is None:
            return show.sentence("There is no data set to browse: start with --data.")
        ranking: list[Any] = self.explorer.ranked_pictures() if kind == "pictures" else self.explorer.ranked_captions()
        first, pages = PER_PAGE * (number - 1), -(-len(ranking) // PER_PAGE)
        rows = (ranking[::-1] if least else ranking)[first : first + PER_PAGE]
        if not rows:
            last = f"the last page is {pages}" if pages else f"the data set has no {kind}"
            return show.sentence(f"There is no page {number}: {last}.")
        told = f"Page {number} of {pages}: places {first + 1:,} to {first + len(rows):,} of {len(ranking):,}."
        if kind == "captions":
            return show.ranked_captions(rows, told, self.explorer.caption_range())
        cards = [
            (_address(item.picture), item.captions[0] if item.captions else item.key, value) for item, value in rows
        ]
        return show.ranked_pictures(cards, told, pictures)

    def _given(self, name: str, text: str | None) -> Any:
        """What the address says of a component, where it can be that."""
        component = self.kept[name]
        if name == "place":
            text = text if text and re.fullmatch(r"[1-9]\d{0,6}", text) else None
        elif isinstance(component, gr.Dropdown | gr.Radio) and text not in {value for _, value in component.choices}:
            text = None
        return gr.skip() if text is None else gr.update(value=int(text) if name == "place" else text)


_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""No entry in a public API: the page is the interface."""


def _answered(run: Callable[..., Any]) -> Callable[..., Any]:
    """What the user got wrong is said on the page, and nothing is traced back."""

    def answer(*values: Any) -> Any:
        try:
            return run(*values)
        except (ValueError, DataError) as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from error

    return answer


def _answered_in_place(run: Callable[..., str]) -> Callable[..., str]:
    """For the first look, and while one types: what is missing is said where the answer will be."""

    def answer(*values: Any) -> str:
        try:
            return run(*values)
        except (ValueError, DataError) as error:
            return show.sentence(f"No answer yet: {error}.")

    return answer


def _label(item: Item) -> str:
    return f"{item.captions[0]} · {item.key}" if item.captions else item.key


def _thumbnail(data: bytes) -> Image.Image:
    """What the model sees of a picture: its middle square, without transparency."""
    return Image.fromarray(preprocess_image(data, _THUMBNAIL))


def _address(data: bytes) -> str:
    return data_uri(preprocess_image(data, SIDE))
