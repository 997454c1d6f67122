"""Random Gaussians with unit means."""

import torch
import torch.nn.functional as F

from prolip.gaussian import Gaussian


def gaussians(*shape, seed, log_var=-3.0):
    noise = torch.Generator().manual_seed(seed)
    mean = F.normalize(torch.randn(*shape, generator=noise, dtype=torch.float64), dim=-1)
    return Gaussian(mean, log_var + 0.3 * torch.randn(*shape, generator=noise, dtype=torch.float64))
