"""Makes a work directory with a detector that is small enough for every test, and image files for it."""

import contextlib
import dataclasses
import fcntl
import io
import os

import keras
import numpy as np
import pytest
from PIL import Image

from kfpn.config.presets import preset
from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.saved_model.verify_saved_model import Reference
from kfpn.export.saved_model.write_saved_model import export_saved_model
from kfpn.export.trained import open_trained
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from tests.modeling import tiny

CLASS_NAMES = ("ant", "bee", "cat")
CATEGORY_IDS = (3, 7, 18)


def tiny_config(**model):
    """Returns the configuration of the tiny run: images of 96 x 128 are not resized, others are."""
    config = preset("shapes")
    return dataclasses.replace(
        config,
        model=tiny.config(**{"norm": "bn", "score_threshold": 0.05, **model}),
        input=dataclasses.replace(config.input, short_side=96, long_side=160, divisor=32),
    )


def write_workdir(path, **model):
    """Writes a work directory as `kfpn train` would, with random weights that give some detections, and returns its path.

    Args:
        path: the folder to make.
        model: fields of `ModelConfig` that differ from the tiny ones.
    """
    config = tiny_config(**model)
    keras.utils.set_random_seed(0)
    weights_model = build_submodels(config.model).weights_model
    tiny.shake(weights_model)
    rng = np.random.default_rng(1)
    for variable in weights_model.variables:
        # Heads that were not trained give all boxes nearly the same score, and the order of equal scores is arbitrary. So
        # the weights are changed until the scores differ.
        if variable.path.endswith("kernel") and variable.path.startswith(("rpn_", "head_")):
            variable.assign(np.array(variable) + rng.normal(0.0, 0.05, variable.shape))
    for variable in weights_model.variables:
        # Fresh masks are .5 everywhere, which is where pasting decides.
        if variable.path.startswith("mask_logits/kernel"):
            variable.assign(rng.normal(0.0, 1.0, variable.shape))
    workdir = Workdir(path)
    workdir.check_writable()
    workdir.prepare(config, CLASS_NAMES, CATEGORY_IDS, "by hand")
    workdir.save_weights(weights_model)
    return workdir.path


@contextlib.contextmanager
def shared_folder(tmp_path_factory, name):
    """Yields a folder that all workers of pytest-xdist share. One of them at a time is in the `with` block."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder = root / f"shared_{name}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def tiny_workdir(tmp_path_factory):
    """Returns the path of a work directory of three classes (norm "bn"). Tests share it and must not change it."""
    return write_workdir(tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture(scope="session")
def mask_workdir(tmp_path_factory):
    """Returns the path of a work directory of the tiny detector with masks. Tests share it and must not change it."""
    return write_workdir(
        tmp_path_factory.mktemp("masks") / "run", mask=True, mask_channels=8, norm_heads=True, max_detections=6
    )


@pytest.fixture(scope="session")
def exported(tiny_workdir, tmp_path_factory):
    """Returns the path of the tiny detector's SavedModel with all signatures (version 1). Tests share it and must not change it."""
    with shared_folder(tmp_path_factory, "served") as folder:
        version = folder / "tiny" / "1"
        return version if version.exists() else export_saved_model(tiny_workdir, folder / "tiny")


@pytest.fixture(scope="session")
def onnx_file(tiny_workdir, tmp_path_factory):
    """Returns the path of the tiny detector's ONNX file of any size, or skips. Tests share it and must not change it."""
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    with shared_folder(tmp_path_factory, "onnx") as folder:
        # The export itself compares the file with Keras, for two image sizes and two batch sizes.
        path = folder / "model.onnx"
        return path if path.exists() else export_onnx(tiny_workdir, path)


@pytest.fixture(scope="session")
def trained(tiny_workdir):
    """Returns the tiny detector, opened for export. Tests share it and must not change it."""
    return open_trained(tiny_workdir)


@pytest.fixture(scope="session")
def trained_masks(mask_workdir):
    """Returns the tiny detector with masks, opened for export. Tests share it and must not change it."""
    return open_trained(mask_workdir)


@pytest.fixture(scope="session")
def reference(trained):
    """Returns the tiny detector in Keras, before any export, as a function of images."""
    return Reference(trained)


@pytest.fixture(scope="session")
def make_workdir():
    """Returns the function (path, **fields of ModelConfig) that writes another work directory."""
    return write_workdir


@pytest.fixture(scope="session")
def photo():
    """Returns the function (height, width, seed=0) -> (height, width, 3) uint8, a picture to detect on."""
    return draw_photo


@pytest.fixture(scope="session")
def encoded():
    """Returns the function (image, kind="PNG", **options of Pillow) -> bytes of an image file."""
    return encode


def draw_photo(height, width, seed=0):
    """Returns a picture (height, width, 3) uint8 with smooth areas and edges, as a photo has."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    picture = np.array(picture)
    for _ in range(4):
        y, x = rng.integers(0, height * 2 // 3), rng.integers(0, width * 2 // 3)
        picture[y : y + height // 3, x : x + width // 4] = rng.integers(0, 256, 3)
    return picture


def encode(image, kind="PNG", **options):
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()
