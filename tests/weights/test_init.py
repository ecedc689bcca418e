"""Tests `kfpn train --init` with the real data pipeline, a tiny detector and a few steps."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import kfpn
from kfpn.cli import command_line as cli
from kfpn.config.presets import preset
from kfpn.config.run import InputConfig, OptimizerConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from kfpn.training.train import train
from kfpn.weights.assign import model_config
from kfpn.weights.built_detector import variables_of
from kfpn.weights.identify import read_trained_weights
from tests.eager import eagerly
from tests.weights.foreign import (
    detectron2,
    detectron2_backbone,
    heads,
    torchvision,
    torchvision_backbone,
    trunk,
    write,
)

pytestmark = pytest.mark.filterwarnings("ignore:no validation data", "ignore:Even though the `tf.config")
UNITS = trunk()
CLASSES = ("dog", "person")


def source(count):
    rng = np.random.default_rng(0)
    records = []
    for index in range(count):
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        box, label = np.array([[8, 8, 40, 50]], np.float32), np.array([index % 2], np.int32)
        crowd, areas = np.array([False]), np.array([32 * 42], np.float32)
        records.append(Record(image, index, 64, 64, box, label, crowd, areas, f"picture {index}"))
    return IterableSource(records, CLASSES)


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def config(coco, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("run"))
    config = cli.train_defaults(["train", "--init", str(coco), "--workdir", workdir])
    # The learning rate is small and gradients are clipped, so that no weight changes by more than lr x steps. An average that
    # began with other weights would be noticed.
    slow = OptimizerConfig(learning_rate=1e-3, reference_batch=2, warmup_steps=0, clip_norm=1.0, ema_decay=0.9)
    small = {"pre_nms_train": 20, "post_nms_train": 20}
    changes = {"sampling": dataclasses.replace(config.sampling, rpn_batch=16, roi_batch=8), "optimizer": slow}
    changes |= {"steps": 2, "batch_size": 2, "log_every": 1, "checkpoint_every": 1, "samples": 0}
    changes |= {"jit_compile": False, "strategy": "one_device", "input": InputConfig(64, 64), "workdir": workdir}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **small), **changes)


@pytest.fixture(scope="module")
def final(config):
    return train(config, source(4))


def values(model):
    return {key: np.array(variable) for key, variable in variables_of(model).items()}


def test_a_run_starts_from_the_weights_and_does_not_change_a_bit_of_frozen_stages(config, final, coco):
    trained, expected = kfpn.load_detector(config.workdir), kfpn.load_detector(coco)
    after, before = values(trained), values(expected)
    assert trained.class_names == CLASSES
    for key in before:
        frozen = key.startswith(("stem_", "conv2_")) or "_norm/" in key
        if key.startswith(("head_logits", "head_deltas")):
            continue
        np.testing.assert_allclose(after[key], before[key], rtol=0, atol=2.1e-3, err_msg=key)
        if frozen:
            np.testing.assert_array_equal(after[key], before[key], key)
    moved = {key.split("/")[0] for key in before if key in after and not np.array_equal(after[key], before[key])}
    assert {"conv3_1_1_conv", "conv5_2_2_conv", "lateral_2", "rpn_conv", "head_fc1"} <= moved


def test_the_classes_are_taken_by_name(config, final):
    (logits, _), (deltas, _) = (heads(UNITS, classes=80, background_first=False)[part] for part in ("cls", "box"))
    after = values(kfpn.load_detector(config.workdir))
    # COCO's dog is label 16, its person is label 0, and the background comes last.
    np.testing.assert_allclose(after["head_logits/kernel"], logits[[16, 0, 80]].T, rtol=0, atol=2.1e-3)
    rows = [4 * label + k for label in (16, 0) for k in (1, 0, 3, 2)]
    np.testing.assert_allclose(after["head_deltas/kernel"], deltas[rows].T, rtol=0, atol=2.1e-3)


def test_a_run_goes_on_if_the_file_that_it_began_with_is_missing(config, final, tmp_path, capsys):
    shutil.copytree(config.workdir, tmp_path / "run")
    gone = dataclasses.replace(config, workdir=str(tmp_path / "run"))
    (tmp_path / "run" / "checkpoints" / "step_00000002.npz").unlink()
    (tmp_path / "run" / "final.json").unlink()
    hidden = Path(config.init).rename(tmp_path / "elsewhere.pkl")
    try:
        again = cli.train_defaults(["train", "--init", str(config.init), "--workdir", gone.workdir])
        assert dataclasses.replace(again.model, num_classes=80) == gone.model
        assert again.sampling == gone.sampling
        train(gone, source(4))
        assert "goes on from step 1 of 2" in capsys.readouterr().out
        fresh = dataclasses.replace(config, workdir=str(tmp_path / "fresh"))
        with pytest.raises(ValueError, match=r"coco\.pkl: does not exist"):
            train(fresh, source(4))
    finally:
        hidden.rename(config.init)


def test_the_same_folder_with_other_initial_weights_is_refused(config, final, coco, tmp_path):
    other = shutil.copy(coco, tmp_path / "other.pkl")
    with pytest.raises(ValueError, match=r"made with other options: init: "):
        train(dataclasses.replace(config, init=str(other)), source(4))


def test_a_network_that_the_weights_do_not_fit_is_refused_before_training(config, tmp_path):
    wrong = dataclasses.replace(config.model, pixel_std=(2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match=r"coco\.pkl: the model must be built as .* pixel_std="):
        train(dataclasses.replace(config, workdir=str(tmp_path), model=wrong), source(4))


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("preset", [None, "finetune", "coco", "shapes", "detectron2_1x", "torchvision"])
@pytest.mark.parametrize("kind", ["torchvision", "detectron2"])
def test_the_network_is_that_of_the_weights_with_any_preset(tmp_path, preset, kind):
    layers = heads(UNITS, background_first=kind == "torchvision")
    state = torchvision(UNITS, layers) if kind == "torchvision" else detectron2(UNITS, layers)
    path = write(tmp_path / "m.safetensors", state)
    args = ["train", "--init", str(path), *(["--preset", preset] if preset else [])]
    config, trained = cli.train_defaults(args), read_trained_weights(path)
    assert config.preset == (preset or "finetune")
    expected = dataclasses.replace(model_config(trained), freeze_stages=config.model.freeze_stages)
    assert config.model == expected
    assert {**vars(config.sampling), **trained.sampling} == vars(config.sampling)


@pytest.mark.parametrize("name", ["paper", "detectron2_1x", "detectron2_3x", "torchvision"])
def test_a_recipe_starts_from_an_imagenet_backbone_with_all_its_fields(tmp_path, name):
    """The backbone of a recipe brings nothing but what the recipe has: only the width is that of the small file here."""
    units, recipe = trunk("resnet50"), preset(name)
    if name == "torchvision":
        path = write(tmp_path / "resnet50.safetensors", torchvision_backbone(units))
    else:
        path = write(tmp_path / "R-50.pkl", {"model": detectron2_backbone(units), "__author__": "MSRA"})
    config = cli.train_defaults(["train", "--preset", name, "--init", str(path)])
    pixels = {"pixel_std": (1.0, 1.0, 1.0)} if name == "paper" else {}  # a choice that is the file's
    assert config == dataclasses.replace(
        recipe, init=str(path), model=dataclasses.replace(recipe.model, backbone_width=8, **pixels)
    )
    assert (config.preset, config.model.stride_on) == (name, "3x3" if name == "torchvision" else "1x1")


def test_a_work_directory_brings_its_sizes_of_images_but_not_which_images_are_left_out(config, tmp_path):
    given = dataclasses.replace(config.input, train_short_sides=(32, 64), keep_empty=False)
    Workdir(tmp_path).prepare(dataclasses.replace(config, input=given), CLASSES, (1, 2), "data")
    Workdir(tmp_path).save_weights(build_submodels(config.model).weights_model)
    brought = read_trained_weights(tmp_path).input
    assert brought == {name: value for name, value in vars(given).items() if name != "keep_empty"}


def test_an_option_replaces_a_setting_that_comes_with_the_weights(coco, monkeypatch):
    import kfpn.training.train

    seen = []
    monkeypatch.setattr(kfpn.training.train, "train", seen.append)
    options = ["--model.freeze-stages", "3", "--model.score-threshold", "0.2", "--data", "shapes"]
    assert cli.main(["train", f"--init={coco}", *options]) == 0
    assert (seen[0].model.freeze_stages, seen[0].model.score_threshold) == (3, 0.2)
    assert (seen[0].model.pixel_std, seen[0].init, seen[0].preset) == ((1.0, 1.0, 1.0), str(coco), "finetune")


def test_the_error_for_unreadable_weights_is_one_line_before_anything_is_written(tmp_path, capsys):
    assert cli.main(["train", "--init", str(tmp_path / "none.pth"), "--workdir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.strip().endswith(f"{tmp_path / 'none.pth'}: does not exist (looked in {tmp_path})")
    assert not (tmp_path / "run").exists()
