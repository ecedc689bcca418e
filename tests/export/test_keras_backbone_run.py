"""Tests a run on a Keras model from the first step to the exports: trained, kept, resumed, loaded, exported and verified."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

import kfpn
from kfpn.config.presets import preset
from kfpn.config.run import InputConfig, to_dict
from kfpn.export.onnx.write_onnx import export_onnx
from kfpn.export.saved_model.write_saved_model import export_saved_model
from kfpn.runs.load import load_submodels
from kfpn.runs.workdir import Workdir
from kfpn.training.train import train
from kfpn.weights import application_weights
from kfpn.weights.application_weights import read_application
from kfpn.weights.assign import assign_weights
from kfpn.weights.brought_settings import settings_of_weights
from tests.modeling import tiny
from tests.modeling.keras_models import convolutions
from tests.training.made_up import source

TRAIN = source(0, 4, name="seen")
NAMED = ("keras:mobilenet_v3_large", "keras:efficientnetv2-b0", "keras:convnext_tiny")
"""Networks of keras.applications whose runs and exports are tested with -m slow; a small model of one's own is tested always."""


def run_config(folder, backbone, steps=2):
    base = preset("shapes")
    few = {"pre_nms_train": 40, "pre_nms_test": 40, "post_nms_train": 20, "post_nms_test": 20, "max_detections": 10}
    return dataclasses.replace(
        base,
        data="seen",
        workdir=str(folder / "run"),
        steps=steps,
        batch_size=2,
        log_every=1,
        checkpoint_every=1,
        samples=0,
        report=False,
        jit_compile=False,
        model=dataclasses.replace(
            base.model, backbone=backbone, pyramid_channels=16, head_width=32, score_threshold=0.0, **few
        ),
        input=InputConfig(64, 64),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=0.01, warmup_steps=0),
    )


@pytest.fixture(scope="module")
def run_on_a_file(tmp_path_factory):
    """Returns the configuration of a run on the file of a model, whose weights were taken as they are in it, and that model."""
    folder = tmp_path_factory.mktemp("file")
    model = convolutions(preparing=True)
    model.save(folder / "mine.keras")
    config = run_config(folder, str(folder / "mine.keras"))
    train(config, TRAIN)
    return config, model


@pytest.fixture(scope="module", params=["file", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMED)])
def run(request, tmp_path_factory):
    """Returns the configuration of a run on a file, or on a network of keras.applications."""
    if request.param == "file":
        return request.getfixturevalue("run_on_a_file")[0]
    config = run_config(tmp_path_factory.mktemp("name"), request.param)
    train(config, TRAIN)
    return config


def backbone_in(workdir):
    return load_submodels(Workdir(workdir)).features.get_layer("backbone")


def test_two_steps_reach_the_first_layer_and_the_statistics_of_its_norm(run_on_a_file):
    config, model = run_on_a_file
    rows = [json.loads(line) for line in Workdir(config.workdir).metrics.read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    trained = backbone_in(config.workdir)
    for layer, variable in (("conv1", "kernel"), ("bn1", "moving_mean"), ("conv5", "kernel")):
        before, after = (np.array(getattr(one.get_layer(layer), variable)) for one in (model, trained))
        assert 0.0 < np.abs(after - before).max() < 1.0


def test_the_work_directory_has_all_that_its_detector_needs(run, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(run.workdir, moved)
    image = tiny.image(64, 64)[None]
    original, again = (kfpn.load_detector(str(path)) for path in (run.workdir, moved))
    tiny.require_same_detections(original, again, image)
    written = json.loads((moved / "config.json").read_text())["model"]["backbone"]
    assert written == run.model.backbone
    is_file = written.endswith(".keras")
    assert Workdir(moved).read_config().model.backbone == (str(moved / "backbone.keras") if is_file else written)
    # What starts from these weights gets the network with them.
    assert (
        settings_of_weights(str(moved), str(tmp_path)).model["backbone"] == Workdir(moved).read_config().model.backbone
    )


def test_a_run_on_a_file_goes_on_with_that_file_alone(run_on_a_file, tmp_path):
    config, _ = run_on_a_file
    assert train(config, TRAIN)["steps"] == 2
    convolutions(width=4).save(tmp_path / "other.keras")
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=str(tmp_path / "other.keras")))
    before = to_dict(Workdir(config.workdir).read_config())
    with pytest.raises(ValueError, match=r"model\.backbone must be the file that .*run began with, got .*other\.keras"):
        train(other, TRAIN)
    assert to_dict(Workdir(config.workdir).read_config()) == before


def test_weights_of_a_run_on_a_file_load_into_a_detector_on_the_model_itself(run_on_a_file):
    config, _ = run_on_a_file
    names = ("pyramid_channels", "head_width", "norm_heads", "anchor_sizes", "canonical_size")
    settings = {name: getattr(config.model, name) for name in names}
    detector = kfpn.build_detector(2, convolutions(preparing=True), **settings)
    kfpn.load_weights(detector, config.workdir, class_names=("green", "red"))
    loaded = detector.get_layer("features").get_layer("backbone").get_weights()
    for want, got in zip(backbone_in(config.workdir).get_weights(), loaded, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_saved_model_is_verified(run, tmp_path):
    assert export_saved_model(run.workdir, tmp_path / "served").exists()


def test_an_onnx_file_is_verified(run, tmp_path):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    assert export_onnx(run.workdir, tmp_path / "model.onnx").exists()


def test_groups_of_one_channel_are_exported_and_larger_ones_are_refused_in_one_line(tmp_path):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    for groups in (8, 4):
        folder = tmp_path / str(groups)
        folder.mkdir()
        convolutions(preparing=True, groups=groups).save(folder / "mine.keras")
        detector = kfpn.build_detector(2, str(folder / "mine.keras"), pyramid_channels=16, head_width=32)
        detector.input_config = InputConfig(64, 64)
        kfpn.save_detector(detector, folder / "run")
    assert export_onnx(tmp_path / "8/run", tmp_path / "model.onnx").exists()
    line = r"^backbone must have no convolution in groups for ONNX, got layer groups with groups=4: only those"
    with pytest.raises(ValueError, match=line):
        export_onnx(tmp_path / "4/run", tmp_path / "refused.onnx")
    assert not (tmp_path / "refused.onnx").exists()


def test_imagenet_weights_of_a_name_are_taken_over(monkeypatch):
    made = []

    def downloaded(source, weights):
        assert weights == "imagenet"
        made.append(keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(None, None, 3)))
        return made[0]

    monkeypatch.setattr(application_weights, "build_application", downloaded)
    trained = read_application("keras:mobilenet_v3_small")
    assert trained.model == settings_of_weights("keras:mobilenet_v3_small", "nowhere").model
    detector = kfpn.build_detector(2, pyramid_channels=16, head_width=16, **trained.model)
    with pytest.warns(UserWarning, match="is a backbone: pyramid, RPN and heads are left fresh"):
        assign_weights(trained, detector, {})
    loaded = detector.get_layer("features").get_layer("backbone").get_weights()
    for want, got in zip(made[0].get_weights(), loaded, strict=True):
        np.testing.assert_array_equal(got, want)


def test_without_a_network_the_download_fails_in_one_line(monkeypatch):
    import urllib.error
    import urllib.request

    def offline(*_args, **_kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", offline)
    with pytest.raises(
        ValueError, match=r"weights of keras:mobilenet_v3_small must be downloaded .*no network"
    ) as error:
        kfpn.build_detector(3, "keras:mobilenet_v3_small", weights="imagenet")
    assert "\n" not in str(error.value)
