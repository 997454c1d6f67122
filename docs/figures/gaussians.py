"""Two captions and an image as Gaussians, in two of their dimensions."""

import matplotlib.pyplot as plt
from matplotlib.patches import Ellipse

ITEMS = (
    ("“an animal”", (0.0, 0.0), (0.50, 0.40), "tab:blue"),
    ("“a blowfish”", (0.28, 0.12), (0.17, 0.14), "tab:orange"),
    ("an image of one", (0.36, 0.04), (0.07, 0.08), "tab:green"),
)

figure, axes = plt.subplots(figsize=(6, 3.4))
for name, mean, deviation, colour in ITEMS:
    for times in (1, 2):
        width, height = (2 * times * side for side in deviation)
        axes.add_patch(Ellipse(mean, width, height, facecolor=colour, alpha=0.18, edgecolor=colour))
    axes.plot(*mean, "o", color=colour, markersize=4, label=name)
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
axes.set(xlim=(-1.1, 1.1), ylim=(-0.9, 0.9), xlabel="one dimension", ylabel="another", aspect="equal")
axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
