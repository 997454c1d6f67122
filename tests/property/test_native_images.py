"""Images at their native aspect: positions, and one result for an image alone and padded."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from prolip.images.tensors import Patches
from prolip.models import ModelConfig, ProLIP, TextConfig, VisionConfig
from prolip.models.position_tables import grid_positions

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))
VISION = VisionConfig(layers=2, width=16, head_width=8, patch_size=2, image_size=(8, 6), embed_unc=True)
TOWERS = [
    replace(VISION, pool_type=pool, unc_seen=seen, embed_unc=unc)
    for pool, seen, unc in (("tok", True, True), ("tok", False, True), ("map", True, True), ("map", False, True))
] + [replace(VISION, pool_type="map", embed_unc=False)]


def model_of(vision, **changes):
    torch.manual_seed(0)
    text = TextConfig(layers=1, width=16, heads=2, context_length=4, vocab_size=9)
    config = ModelConfig(embed_dim=16, vision=replace(vision, **changes), text=text)
    return ProLIP(config).double()


def pixels(grid, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2 * grid[0], 2 * grid[1], generator=generator, dtype=torch.float64)


def results(model, images, kept=None):
    """Means and log variances of all images, then the gradients of all parameters."""
    parts = [model.encode_image(some, kept, normalize=False) for some in images]
    found = [torch.cat([part.mean for part in parts])]
    if model.visual.uncertainty_proj is not None:
        found.append(torch.cat([part.log_var for part in parts]))
    upstream = [torch.randn(one.shape, generator=torch.Generator().manual_seed(1)).to(one) for one in found]
    return [*found, *torch.autograd.grad(found, list(model.visual.parameters()), upstream)]


def interpolated(table, grid, mode):
    """Torch's positions of a grid."""
    if grid[1] == 1:  # on CPUs torch forgets to interpolate the rows of one column
        table = F.interpolate(table, (table.shape[2], 1), mode=mode, antialias=True).mT
        return F.interpolate(table, (1, grid[0]), mode=mode, antialias=True)[0, :, 0].T
    return F.interpolate(table, grid, mode=mode, antialias=True)[0].flatten(1).T


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@given(table_grid=GRIDS, grids=st.lists(GRIDS, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_positions_are_those_of_the_antialiased_filter(mode, table_grid, grids):
    rows, columns = table_grid
    table = torch.randn(rows * columns, 5, dtype=torch.float64, requires_grad=True)
    square = table.T.reshape(1, 5, rows, columns)
    images = Patches.of([pixels(grid) for grid in grids], 2)
    found = grid_positions(table, table_grid, images.coords, images.grids[:, None], mode)[images.valid]
    expected = torch.cat([interpolated(square, grid, mode) for grid in grids])
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, table, upstream) for one in (found, expected)))


@pytest.mark.parametrize("vision", TOWERS)
def test_images_of_the_tables_grid_are_those_of_the_square_model(vision):
    square, native = model_of(vision), model_of(vision, image_seq_len=12)
    images = torch.stack([pixels((4, 3), seed) for seed in range(3)])
    kept = torch.tensor([[0, 5, 7], [1, 2, 11], [3, 8, 9]])
    for chosen in (None, kept):
        expected = results(square, [images], chosen)
        torch.testing.assert_close(results(native, [images], chosen), expected)
        torch.testing.assert_close(results(square, [Patches.of(list(images), 2)], chosen), expected)


@pytest.mark.parametrize("vision", TOWERS)
@given(grids=st.lists(GRIDS, min_size=1, max_size=4), data=st.data())
@settings(max_examples=15, deadline=None)
def test_an_image_is_the_same_alone_and_padded(vision, grids, data):
    model = model_of(vision, image_seq_len=81, pos_embed_interp_mode="bicubic")
    images = [pixels(grid, seed) for seed, grid in enumerate(grids)]
    padded = Patches.of(images, 2)
    padded.patches[~padded.valid] = torch.inf
    torch.testing.assert_close(results(model, [padded]), results(model, [image[None] for image in images]))

    # Some of the images, and some of their patches.
    chosen = torch.tensor(data.draw(st.permutations(range(len(grids)))))[:2]
    torch.testing.assert_close(results(model, [padded.rows(chosen)]), results(model, [images[i][None] for i in chosen]))
    counts = [data.draw(st.integers(1, rows * columns)) for rows, columns in grids]
    kept = torch.full((len(grids), max(counts)), -1)
    for number, count in enumerate(counts):
        kept[number, :count] = torch.randperm(int(padded.grids[number].prod()))[:count].sort().values
    few = results(model, [padded], kept)
    torch.testing.assert_close(results(model, [padded.rows(chosen)], kept[chosen])[0], few[0][chosen])
    for number, count in enumerate(counts):
        some = model.encode_image(images[number][None], kept[number, None, :count], normalize=False).mean
        torch.testing.assert_close(some[0], few[0][number])
