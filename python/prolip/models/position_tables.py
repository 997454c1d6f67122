"""Resizes a checkpoint's position and token tables for a model of another size, and positions for an image's own grid.

"official" repeats the released loader. "corrected" keeps the learned rows of special tokens, which the official form
loses or blurs (specification §6).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.errors import UserError
from prolip.models.config import PositionMode, ResizeForm

# Longer tables keep their first rows, which are trained best.
_LONG_TEXT = 127
_KEPT_ROWS = 20


def resize_image_positions(
    checkpoint: Tensor, model_table: Tensor, grid: tuple[int, int], form: ResizeForm, num_specials: int = 2
) -> Tensor:
    """Resize a checkpoint's image positions to `num_specials` special tokens and `grid` patches.

    Patch rows are resampled by an antialiased bicubic filter if the grids differ. Special rows that the checkpoint
    lacks come from `model_table`. If both have [CLS] and [UNC], the official form takes these from there, too.

    The number of special rows follows from that of all rows, because patches form a square. (The released loader knows
    only squares of 14 and 16.)

    Args:
        checkpoint: [n, W], [1, n, W], or of patches alone [1, rows, columns, W].
        model_table: the model's initial table.
        grid: rows and columns of patches.
        form: what happens to special rows.
        num_specials: special tokens of the model.

    Returns:
        [num_specials + rows * columns, W]

    Raises:
        UserError: the checkpoint's patch rows do not form a square.
    """
    table = checkpoint.flatten(0, -2)
    if len(table) == num_specials + grid[0] * grid[1]:
        return table
    sides = {count: math.isqrt(max(len(table) - count, 0)) for count in range(num_specials + 1)}
    own = next((count for count, side in sides.items() if side and side**2 == len(table) - count), None)
    if own is None:
        raise UserError("positions", f"must be up to {num_specials} special rows and a square of patches", len(table))
    patches, side = table[own:], sides[own]
    if (side, side) != grid:
        square = patches.T.reshape(1, -1, side, side)
        resampled = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
        patches = resampled.flatten(2)[0].T
    kept = 0 if own == 2 and form == "official" else own
    return torch.cat([table[:kept], model_table[kept:num_specials].to(table), patches])


def _resample_rows(rows: Tensor, count: int) -> Tensor:
    """Linearly, [n, W] to [count, W], with half-pixel centres, clamped at the ends."""
    return F.interpolate(rows.T[None], count, mode="linear", align_corners=False)[0].T


def resize_text_positions(checkpoint: Tensor, num_rows: int, num_specials: int, form: ResizeForm) -> Tensor:
    """Resize a checkpoint's text positions to `num_rows` rows, of which the last `num_specials` are special, [rows, W].

    Above 127 rows, the first 20 and the special rows are kept, and those between are interpolated. Up to 127 rows, the
    official form interpolates the whole table; the corrected form keeps the special rows.

    Raises:
        UserError: the checkpoint has no row to interpolate.
    """
    if len(checkpoint) == num_rows:
        return checkpoint
    if num_rows <= _LONG_TEXT and form == "official":
        return _resample_rows(checkpoint, num_rows)
    kept = _KEPT_ROWS if num_rows > _LONG_TEXT else 0
    end = len(checkpoint) - num_specials
    if end <= kept:
        raise UserError(
            "text positions",
            f"must have a row to interpolate beside the first {kept} and {num_specials} special ones, for {num_rows}",
            len(checkpoint),
        )
    body = _resample_rows(checkpoint[kept:end], num_rows - num_specials - kept)
    return torch.cat([checkpoint[:kept], body, checkpoint[end:]])


def resize_token_table(checkpoint: Tensor, model_table: Tensor) -> Tensor:
    """Append the model's remaining rows to a checkpoint's shorter table, [vocabulary, W].

    Raises:
        UserError: the checkpoint has more rows than the model, or rows of another width.
    """
    if checkpoint.shape[1] != model_table.shape[1] or len(checkpoint) > len(model_table):
        raise UserError(
            "token table",
            f"must have the width of {tuple(model_table.shape)}, and not more rows",
            tuple(checkpoint.shape),
        )
    return torch.cat([checkpoint, model_table[len(checkpoint) :].to(checkpoint)])


def grid_positions(
    table: Tensor, table_grid: tuple[int, int], coords: Tensor, grids: Tensor, mode: PositionMode
) -> Tensor:
    """The positions of patches in grids of any size, as F.interpolate(antialias=True) gives for each grid.

    The filter is linear and separable: a patch has a weight per row and per column of the table, so all grids together
    take one matrix product.

    Args:
        table: [rows * columns, W]
        table_grid: rows and columns of the table.
        coords: [..., 2], row and column of each patch in its image.
        grids: [..., 2], rows and columns of its image.
        mode: the filter, a triangle or a cubic with a = -0.5.

    Returns:
        [..., W]
    """
    dtype = torch.promote_types(table.dtype, torch.float32)
    axes = []
    for axis, count in enumerate(table_grid):
        scale = count / grids[..., axis, None].to(dtype)
        centre = (coords[..., axis, None] + 0.5) * scale
        taps = torch.arange(count, device=coords.device) + 0.5
        far = ((taps - centre).abs() / scale.clamp(min=1)).clamp(max=2)  # where both filters are 0
        if mode == "bilinear":
            weights = (1 - far).clamp(min=0)
        else:
            weights = torch.where(far < 1, (1.5 * far - 2.5) * far**2 + 1, ((2.5 - 0.5 * far) * far - 4) * far + 2)
        axes.append(weights / weights.sum(-1, keepdim=True))
    weights = (axes[0][..., None] * axes[1][..., None, :]).flatten(-2)
    with torch.autocast(table.device.type, enabled=False):
        return (weights @ table.to(dtype)).to(table.dtype)
