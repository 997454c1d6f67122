"""Small data sets and models, made once per test file."""

import pytest
from tests.support.captioned_world import CaptionedWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Captioned images, hierarchies and two models."""
    return CaptionedWorld(tmp_path_factory.mktemp("captioned"))
