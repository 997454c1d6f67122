"""The inclusion score against the width of the general side and the distance of the means."""

import matplotlib.pyplot as plt
import torch

from prolip.gaussian import Gaussian, inclusion_score

differences = torch.linspace(-3, 3, 200, dtype=torch.float64)
figure, axes = plt.subplots(figsize=(6, 3.4))
for delta, colour in ((0.0, "tab:blue"), (1.0, "tab:orange"), (2.0, "tab:red")):
    zero = torch.zeros_like(differences)
    specific, general = Gaussian(zero, zero), Gaussian(zero + delta, differences)
    axes.plot(differences, inclusion_score(specific, general), color=colour, label=f"means {delta:g} σ apart")
axes.axhline(0, color="0.6", linewidth=0.8)
axes.axvline(0, color="0.6", linewidth=0.8)
axes.set(xlabel="log variance of the general side minus that of the specific one", ylabel="H, one dimension")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
