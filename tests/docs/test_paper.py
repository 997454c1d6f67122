"""The table of settings in docs/paper.md is made from the recipes.

`PROLIP_UPDATE=1 pytest tests/docs/test_paper.py` writes it.
"""

import os
import re
from pathlib import Path

from prolip.store.typed_tables import flatten, plain
from prolip.train.config.recipes import load_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "paper.md"
BEGIN, END = "<!-- settings: made by tests/docs/test_paper.py -->\n\n", "\n<!-- end of settings -->"
COLUMNS = {
    "vit-b16-datacomp-1b-1.28b": "1.28 B",
    "vit-b16-datacomp-1b-1.28b with-exact": "with-exact",
    "vit-b16-datacomp-1b-12.8b": "12.8 B",
    "finetune-siglip-vit-l16-1.28b": "L/16",
    "finetune-siglip-vit-so400m14-1.28b": "SO400M",
    "finetune-dfn-vit-h14-1.28b": "H/14",
    "longprolip-vit-b16-24m": "long",
    "control-siglip-vit-b16-1.28b": "SigLIP",
}
SHOWN = re.compile(
    r"architecture|start_from|samples_seen|batch_size|precision|optim\.(lr|weight_decay|warmup_steps|betas|eps|schedule)"
    r"|loss\.(contrast|inc.*|masked_.*|ppcl.*|vib.*)|data\.augment\..*|data\.mask\.(masked.*|mask_id|keep.*|text.*)"
    r"|model\.(init_.*|vision\.final_norm|text\.(log_var_source|context_length))"
)


def test_the_table_of_settings_is_that_of_the_recipes():
    settings = [flatten(plain(load_config([*words.split(), "--shards", "SHARD"]))) for words in COLUMNS]
    keys = filter(SHOWN.fullmatch, settings[0])
    shown = {key: [_shown(table[key]) for table in settings] for key in keys}
    rows = [["", *COLUMNS.values()], ["---"] * (len(COLUMNS) + 1)]
    rows += [[f"`{key}`", *values] for key, values in shown.items() if len(set(values)) > 1]
    common = [f"- `{key}` {values[0]}\n" for key, values in shown.items() if len(set(values)) == 1 and values[0]]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    made = f"{BEGIN}{table}\nThe same in all:\n\n{''.join(common)}{END}"
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    if os.environ.get("PROLIP_UPDATE"):
        PAGE.write_text(before + made + after, encoding="utf-8")
    assert page == before + made + after


def _shown(value):
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value or "")
