"""Makes a work directory of the detector that comes with the package, and pictures for it."""

import numpy as np
import pytest
from PIL import Image

from kfpn.data.toy_scenes import scene
from kfpn.weights.import_weights import import_weights


@pytest.fixture(scope="session")
def small_workdir(tmp_path_factory):
    """Returns the path of a work directory with the weights `kfpn:small`. Tests share it and must not change it."""
    path = tmp_path_factory.mktemp("small") / "run"
    import_weights("kfpn:small", path)
    return path


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Returns the paths of two pictures with objects that the detector knows."""
    folder = tmp_path_factory.mktemp("scenes")
    for seed, name in ((43, "first.png"), (12, "second.png")):
        Image.fromarray(scene(np.random.default_rng(seed)).image).save(folder / name)
    return [folder / "first.png", folder / "second.png"]


@pytest.fixture(scope="session")
def bad_files(tmp_path_factory):
    """Returns the paths of a file that is no picture, and of one that has too many pixels."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a JPEG after all")
    Image.new("1", (15_000, 12_000)).save(folder / "huge.png")
    return [folder / "broken.jpg", folder / "huge.png"]
