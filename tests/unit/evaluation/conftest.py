"""Small data sets and models, made once per test file."""

import pytest
from tests.support.captioned_world import CaptionedWorld
from tests.support.imagenet_world import ImagenetWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> CaptionedWorld:
    """Captioned images, hierarchies and two models."""
    return CaptionedWorld(tmp_path_factory.mktemp("captioned"))


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> ImagenetWorld:
    """ImageNet in small, evaluated."""
    return ImagenetWorld(tmp_path_factory.mktemp("imagenet"))
