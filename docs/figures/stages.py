"""The loader's stages: what opening does once, and what happens to each sample and batch."""

import matplotlib.pyplot as plt

ROWS = (
    ("opening, once", "0.75", ("shards", "headers of\nthe archives", "samples", "index")),
    ("each sample,\nany thread", "tab:blue", ("read", "choose\na caption", "decode\nthe crop", "resize,\nvary")),
    (
        "each batch,\nits last thread",
        "tab:orange",
        ("tokenise", "mask", "wait for its turn", "numpy arrays,\nnot copied"),
    ),
)

figure, axes = plt.subplots(figsize=(8, 3.3))
for y, (name, colour, stages) in enumerate(ROWS):
    axes.text(-0.15, -y, name, ha="right", va="center")
    for x, stage in enumerate(stages):
        axes.text(
            x * 1.1 + 0.45, -y, stage, ha="center", va="center", fontsize=9,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": colour, "alpha": 0.3, "edgecolor": colour},
        )  # fmt: skip
        if x:
            axes.annotate(
                "", (x * 1.1 + 0.08, -y), (x * 1.1 - 0.28, -y), arrowprops={"arrowstyle": "->", "color": "0.4"}
            )
axes.set(xlim=(-1.3, 4.4), ylim=(-2.5, 0.5))
axes.axis("off")
figure.tight_layout()
