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
    open: Callable[[], Decode]
    """Imports the module and returns the function."""

    def installed(self) -> bool:
        """Return whether the package is installed."""
        return find_spec(self.module) is not None

    def version(self) -> str:
        """Return the version of the package."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return "?"


def _prolip() -> Decode:
    from prolip.data import decode

    return decode


def _pillow() -> Decode:
    import numpy as np
    from PIL import Image

    return lambda data: np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def _simplejpeg() -> Decode:
    simplejpeg: Any = import_module("simplejpeg")
    return lambda data: simplejpeg.decode_jpeg(data, "RGB")


def _opencv() -> Decode:
    import numpy as np

    cv2: Any = import_module("cv2")
    cv2.setNumThreads(0)
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def _torchvision() -> Decode:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    io: Any = import_module("torchvision.io")
    rgb = io.ImageReadMode.RGB
    # A copy of the bytes, because torch warns of memory that it must not write to.
    return lambda data: (
        io.decode_jpeg(torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)), mode=rgb).permute(1, 2, 0).numpy()
    )


def _torchcodec() -> Decode:
    import torch

    torch.set_num_threads(1)
    decoders: Any = import_module("torchcodec.decoders")
    return lambda data: decoders.decode_jpeg(data).permute(1, 2, 0).numpy()


def _kornia_turbo() -> Decode:
    kornia: Any = import_module("kornia_rs")
    return lambda data: kornia.io.decode_image_jpegturbo(data, "rgb")


def _kornia_zune() -> Decode:
    kornia: Any = import_module("kornia_rs")
    decode: Decode = kornia.io.decode_image_jpeg
    return decode


def _imageio() -> Decode:
    imageio: Any = import_module("imageio.v3")
    return lambda data: imageio.imread(data, extension=".jpg", mode="RGB")


def _skimage() -> Decode:
    io: Any = import_module("skimage.io")
    return lambda data: io.imread(BytesIO(data))


def _turbojpeg() -> Decode:
    turbojpeg: Any = import_module("turbojpeg")
    decoder = turbojpeg.TurboJPEG()
    return lambda data: decoder.decode(data, pixel_format=turbojpeg.TJPF_RGB)


def _imagecodecs() -> Decode:
    imagecodecs: Any = import_module("imagecodecs")
    return lambda data: imagecodecs.jpeg8_decode(data, outcolorspace="RGB")


def _pyvips() -> Decode:
    pyvips: Any = import_module("pyvips")
    pyvips.voperation.cache_set_max(0)
    return lambda data: pyvips.Image.new_from_buffer(data, "").numpy()


DECODERS = {
    OURS: Decoder("prolip", "prolip", _prolip),
    # At the level `portable` our binding gives every file to libjpeg-turbo, which uses its own vector instructions.
    LIBJPEG: Decoder("prolip", "prolip", _prolip),
    PILLOW: Decoder("pillow", "PIL", _pillow),
    "simplejpeg": Decoder("simplejpeg", "simplejpeg", _simplejpeg),
    "opencv": Decoder("opencv-python-headless", "cv2", _opencv),
    "torchvision": Decoder("torchvision", "torchvision", _torchvision),
    "torchcodec": Decoder("torchcodec", "torchcodec", _torchcodec),
    "kornia-rs": Decoder("kornia-rs", "kornia_rs", _kornia_turbo),
    "zune-jpeg": Decoder("kornia-rs", "kornia_rs", _kornia_zune),
    "turbojpeg": Decoder("PyTurboJPEG", "turbojpeg", _turbojpeg),
    "imagecodecs": Decoder("imagecodecs", "imagecodecs", _imagecodecs),
    "pyvips": Decoder("pyvips", "pyvips", _pyvips),
    "imageio": Decoder("imageio", "imageio", _imageio),
    "skimage": Decoder("scikit-image", "skimage", _skimage),
}
"""Every decoder by its name in the tables. `zune-jpeg` is measured through kornia-rs."""
