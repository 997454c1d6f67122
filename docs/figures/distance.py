"""The sampled distance against the angle between the means, and the probability of a match."""

import matplotlib.pyplot as plt
import torch

from prolip.gaussian import Gaussian, csd, csd_logits

D = 16
angles = torch.linspace(0, torch.pi, 200, dtype=torch.float64)
zero = torch.zeros(len(angles), D - 2, dtype=torch.float64)
means = torch.cat([angles.cos()[:, None], angles.sin()[:, None], zero], 1)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
for spread, colour in ((0.0, "0.5"), (0.1, "tab:blue"), (0.4, "tab:orange")):
    per_dimension = torch.tensor(max(spread / (2 * D), 1e-12), dtype=torch.float64).log()
    images = Gaussian(means, per_dimension.expand(means.shape))
    caption = images.rows(slice(0, 1))
    distance = csd(images, caption)[:, 0]
    chance = csd_logits(images, caption, 20.0, -10.0)[:, 0].sigmoid()
    left.plot(angles.rad2deg(), distance, color=colour, label=f"Σ(σ₁² + σ₂²) = {spread:g}")
    right.plot(angles.rad2deg(), chance, color=colour)
left.set(xlabel="angle between the means (degrees)", ylabel="sampled distance")
right.set(xlabel="angle between the means (degrees)", ylabel="probability of a match", xlim=(0, 90))
left.legend(frameon=False)
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
