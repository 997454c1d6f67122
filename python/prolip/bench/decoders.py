"""The decoders of `prolip bench decode`: ours, libjpeg-turbo in the same binding, and the packages that people use.

Each opens as a function from the bytes of a JPEG file to its pixels, uint8 [H, W, 3] in the order RGB. Packages are
imported only in the process that measures them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import BytesIO
from operator import attrgetter
from typing import Any, NamedTuple

Decode = Callable[[bytes], Any]
"""A function from a file's bytes to an array [H, W, 3], or to an object that numpy can read as one."""
OURS = "prolip"
LIBJPEG = "libjpeg-turbo"
PILLOW = "pillow"


class Decoder(NamedTuple):
    """A decoder."""

    package: str
    """The package to install."""
    module: str
    """The module to import."""
    prepare: Callable[[Any], Decode]
    """Returns the function, given the imported module."""

    def open(self) -> Decode:
        """Import the module, and return the function."""
        return self.prepare(import_module(self.module))

    def installed(self) -> bool:
        """Return whether the package is installed."""
        return find_spec(self.module.partition(".")[0]) is not None

    def version(self) -> str:
        """Return the version of the package."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return "?"


def _opencv(cv2: Any) -> Decode:
    import numpy as np

    cv2.setNumThreads(0)
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def _pillow(image: Any) -> Decode:
    import numpy as np

    return lambda data: np.asarray(image.open(BytesIO(data)).convert("RGB"))


def _torchvision(io: Any) -> Decode:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    rgb = io.ImageReadMode.RGB
    # A copy of the bytes, because torch warns of memory that it must not write to.
    return lambda data: (
        io.decode_jpeg(torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)), mode=rgb).permute(1, 2, 0).numpy()
    )


def _torchcodec(decoders: Any) -> Decode:
    import torch

    torch.set_num_threads(1)
    return lambda data: decoders.decode_jpeg(data).permute(1, 2, 0).numpy()


def _turbojpeg(turbojpeg: Any) -> Decode:
    decoder = turbojpeg.TurboJPEG()
    return lambda data: decoder.decode(data, pixel_format=turbojpeg.TJPF_RGB)


def _pyvips(pyvips: Any) -> Decode:
    pyvips.voperation.cache_set_max(0)
    return lambda data: pyvips.Image.new_from_buffer(data, "").numpy()


DECODERS = {
    OURS: Decoder("prolip", "prolip.data", attrgetter("decode")),
    # At the level `portable` our binding gives every file to libjpeg-turbo, which uses its own vector instructions.
    LIBJPEG: Decoder("prolip", "prolip.data", attrgetter("decode")),
    PILLOW: Decoder("pillow", "PIL.Image", _pillow),
    "simplejpeg": Decoder("simplejpeg", "simplejpeg", lambda module: lambda data: module.decode_jpeg(data, "RGB")),
    "opencv": Decoder("opencv-python-headless", "cv2", _opencv),
    "torchvision": Decoder("torchvision", "torchvision.io", _torchvision),
    "torchcodec": Decoder("torchcodec", "torchcodec.decoders", _torchcodec),
    "kornia-rs": Decoder(
        "kornia-rs", "kornia_rs", lambda module: lambda data: module.io.decode_image_jpegturbo(data, "rgb")
    ),
    "zune-jpeg": Decoder("kornia-rs", "kornia_rs", attrgetter("io.decode_image_jpeg")),
    "turbojpeg": Decoder("PyTurboJPEG", "turbojpeg", _turbojpeg),
    "imagecodecs": Decoder(
        "imagecodecs", "imagecodecs", lambda module: lambda data: module.jpeg8_decode(data, outcolorspace="RGB")
    ),
    "pyvips": Decoder("pyvips", "pyvips", _pyvips),
    "imageio": Decoder(
        "imageio", "imageio.v3", lambda module: lambda data: module.imread(data, extension=".jpg", mode="RGB")
    ),
    "skimage": Decoder("scikit-image", "skimage.io", lambda module: lambda data: module.imread(BytesIO(data))),
}
"""Every decoder by its name in the tables. `zune-jpeg` is measured through kornia-rs."""
