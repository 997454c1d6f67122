"""The released inclusion and bottleneck terms beside the equations."""

import matplotlib.pyplot as plt
import torch

from prolip.gaussian import (
    Gaussian,
    inclusion_score,
    kl_to_standard,
    official_inclusion_score,
    official_kl_to_standard,
)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))

differences = torch.linspace(-2, 2, 200, dtype=torch.float64)
zero = torch.zeros_like(differences)
specific, general = Gaussian(zero, zero), Gaussian(zero + 1, differences)
left.plot(differences, inclusion_score(specific, general), label="exact H")
left.plot(differences, official_inclusion_score(specific, general, -20.0), label="released, ε = −20")
left.set(xlabel="difference of the log variances", ylabel="inclusion, means 1 σ apart")

log_vars = torch.linspace(-12, 2, 200, dtype=torch.float64)
points = Gaussian(torch.zeros_like(log_vars), log_vars)
right.plot(log_vars, kl_to_standard(points), label="exact KL")
right.plot(log_vars, official_kl_to_standard(points), label="released")
right.set(xlabel="log variance", ylabel="bottleneck, one dimension (nats)")
for axes in (left, right):
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
figure.tight_layout()
