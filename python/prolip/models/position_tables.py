"""Tables of a checkpoint fitted to a model of another size: positions and tokens.

Two forms, by name: "official" repeats the released loader; "corrected" keeps the learned rows of special tokens, which
the official one loses or blurs (SPEC section 6).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from prolip.errors import UserError
from prolip.models.config import ResizeForm

# Row counts that are read as one special token and a square of patches; every other count has two special tokens.
_ONE_SPECIAL = (1 + 14 * 14, 1 + 16 * 16)
# Texts longer than this keep their first rows, which are trained best, as they are.
_LONG_TEXT = 127
_KEPT_ROWS = 20


def resize_image_positions(
    checkpoint: Tensor, model_table: Tensor, grid: tuple[int, int], form: ResizeForm, num_specials: int = 2
) -> Tensor:
    """The checkpoint's position table for a model of `num_specials` special tokens and `grid` patches.

    [num_specials + rows * columns, W]. The released models have two, [CLS] and [UNC], and what follows is their rule; a
    checkpoint of a model with fewer has as many as the model, which are kept.

    `checkpoint` is [n, W] or [1, n, W]; patch rows are resampled by an antialiased bicubic filter where the grids
    differ. Special rows that the checkpoint lacks are those of `model_table`, the model's own initial table; the
    official form takes both from there whenever it resizes.

    Raises:
        UserError: the checkpoint's patch rows do not form a square.
    """
    table = checkpoint.squeeze(0) if checkpoint.ndim == 3 else checkpoint
    if len(table) == num_specials + grid[0] * grid[1]:
        return table
    found = 1 if num_specials == 2 and len(table) in _ONE_SPECIAL else num_specials
    specials, patches = table[:found], table[found:]
    side = math.isqrt(len(patches))
    if side * side != len(patches):
        raise UserError(f"{len(table)} position rows are not {found} special rows and a square of patches")
    if (side, side) != grid:
        square = patches.T.reshape(1, -1, side, side)
        resampled = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
        patches = resampled.flatten(2)[0].T
    own = model_table[:2].to(table)
    if found < num_specials:
        specials = torch.cat([specials, own[1:]])
    elif num_specials == 2 and form == "official":
        specials = own
    return torch.cat([specials, patches])


def _resample_rows(rows: Tensor, count: int) -> Tensor:
    """`rows` [n, W] linearly interpolated to `count` rows, half-pixel centres, clamped at the ends."""
    return F.interpolate(rows.T[None], count, mode="linear", align_corners=False)[0].T


def resize_text_positions(checkpoint: Tensor, num_rows: int, num_specials: int, form: ResizeForm) -> Tensor:
    """The checkpoint's text position table with `num_rows` rows, the last `num_specials` of them special, [rows, W].

    Beyond 127 rows the first 20 stay and the others are interpolated up to the special rows, which stay. Up to 127 rows
    the official form interpolates the whole table, special rows included; the corrected form keeps those.
    """
    if len(checkpoint) == num_rows:
        return checkpoint
    if num_rows <= _LONG_TEXT and form == "official":
        return _resample_rows(checkpoint, num_rows)
    kept = _KEPT_ROWS if num_rows > _LONG_TEXT else 0
    end = len(checkpoint) - num_specials
    body = _resample_rows(checkpoint[kept:end], num_rows - num_specials - kept)
    return torch.cat([checkpoint[:kept], body, checkpoint[end:]])


def resize_token_table(checkpoint: Tensor, model_table: Tensor) -> Tensor:
    """The checkpoint's token rows followed by the model's own further ones, [vocabulary, W].

    Raises:
        UserError: the checkpoint has more rows than the model, or rows of another width.
    """
    if checkpoint.shape[1] != model_table.shape[1] or len(checkpoint) > len(model_table):
        raise UserError(
            f"a token table of {tuple(checkpoint.shape)} cannot become one of {tuple(model_table.shape)}: "
            "the width must agree, and no row can be dropped"
        )
    return torch.cat([checkpoint, model_table[len(checkpoint) :].to(checkpoint)])
