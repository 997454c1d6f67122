"""The pixels of an image at native aspect."""

import torch

from prolip.pixels import Preprocess


def native_pixels(data, patch_size, seq_len, filter="bicubic"):
    """Return u8 [H, W, 3]: the whole image, turned as EXIF says."""
    native = Preprocess(resize="native", patch_size=patch_size, image_seq_len=seq_len, filter=filter)
    patches = native.decode(data)[0]
    rows, columns = patches.shape[:2]
    cells = patches.view(rows, columns, patch_size, patch_size, 3)
    return torch.permute(cells, (0, 2, 1, 3, 4)).reshape(rows * patch_size, columns * patch_size, 3).numpy()
