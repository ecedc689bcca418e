"""Checks that saved detectors and work directories of version 0.1.0 keep working."""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kfpn
from kfpn.cli import main
from kfpn.runs.workdir import Workdir
from tests.eager import eagerly

HERE = Path(__file__).parent


def release(version):
    return tuple(int(part) for part in version.split(".")[:2])


def test_a_keras_file_of_0_1_0_loads_and_has_the_same_detections():
    with zipfile.ZipFile(HERE / "detector_0.1.0.keras") as file:
        written_by = json.loads(file.read("metadata.json"))["keras_version"]
    if release(keras.__version__) < release(written_by):
        pytest.skip(
            f"Keras {written_by} wrote this file; Keras promises nothing for older versions, such as {keras.__version__}"
        )
    kfpn.build_detector  # noqa: B018 - imports the layers, which Keras then knows
    model = keras.models.load_model(HERE / "detector_0.1.0.keras")
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3)).astype("float32")
    detections = model({"images": image, "image_sizes": np.array([[60, 90]], "int32")}, training=False)
    with np.load(HERE / "detector_0.1.0.npz") as expected:
        assert expected["num_detections"][0] > 0
        assert set(detections) == set(expected.files)
        for name in expected.files:
            np.testing.assert_allclose(np.array(detections[name]), expected[name], atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def legacy(shared, tmp_path_factory):
    """Returns a copy of a work directory that 0.1.0 trained on `shapes`."""
    folder = tmp_path_factory.mktemp("legacy") / "shapes"
    shutil.copytree(shared("legacy/shapes_0.1.0"), folder)
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


@pytest.fixture
def photo(tmp_path):
    """Returns an image file of a scene of `shapes`."""
    from kfpn.data.toy_scenes import scene

    path = tmp_path / "photo.png"
    Image.fromarray(scene(np.random.default_rng(5)).image).save(path)
    return path


def test_a_work_directory_of_0_1_0_has_the_figures_that_0_1_0_wrote(legacy, tmp_path):
    assert main(["evaluate", "--workdir", str(legacy), "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    final = json.loads((legacy / "final.json").read_text())
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    assert {name: abs(figures[name] - final[name]) < 1e-3 for name in names} == dict.fromkeys(names, True)
    for name, value in final["per_class"].items():
        assert abs(figures["per_class"][name] - value) < 1e-3


def test_a_work_directory_of_0_1_0_predicts_and_shows_its_pyramid(legacy, photo, tmp_path):
    assert main(["predict", "--workdir", str(legacy), str(photo), "--output", str(tmp_path / "detected")]) == 0
    assert json.loads((tmp_path / "detected" / "detections.json").read_text())
    assert main(["visualize", "--workdir", str(legacy), str(photo), "--output", str(tmp_path / "page.png")]) == 0
    assert Image.open(tmp_path / "page.png").width == 2000
    assert kfpn.load_detector(legacy).class_names == Workdir(legacy).read_classes()[0]


def test_a_work_directory_of_0_1_0_exports(legacy, tmp_path):
    served = ["export", "saved_model", str(legacy), str(tmp_path / "served")]
    assert main([*served, "--signatures", "image_tensor", "--verify"]) == 0
    assert (tmp_path / "served" / "1" / "saved_model.pb").exists()
    pytest.importorskip("tf2onnx")
    assert main(["export", "onnx", str(legacy), str(tmp_path / "shapes.onnx")]) == 0
    assert (tmp_path / "shapes.onnx").exists()


def test_a_new_run_starts_from_a_work_directory_of_0_1_0(legacy, tmp_path):
    command = f"train --init {legacy} --data shapes,test[:8] --val-data shapes,validation[:4] --steps 1 --batch-size 2 --samples 0"
    options = ["--no-jit-compile", "--strategy", "one_device", "--workdir", str(tmp_path / "run")]
    with eagerly():
        assert main([*command.split(), *options]) == 0
    new, old = (Workdir(folder).read_config() for folder in (tmp_path / "run", legacy))
    assert new.model == old.model
    final = json.loads((tmp_path / "run" / "final.json").read_text())
    assert final["AP50"] > 0.3  # the weights were trained, and one small step changes little
