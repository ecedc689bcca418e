"""Tests networks that propose segments and start from weights: of a backbone, of a detector, and of segments."""

import contextlib
import dataclasses
import re
import warnings

import numpy as np
import pytest

import kfpn
from kfpn.cli import command_line as cli
from kfpn.config.presets import preset
from kfpn.config.run import InputConfig
from kfpn.modeling.segment_submodels import build_segment_submodels
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from kfpn.training.train import train
from kfpn.weights.identify import read_trained_weights
from tests.eager import eagerly
from tests.training.made_up import source, with_masks
from tests.weights.foreign import torchvision_backbone, trunk, write
from tests.weights.test_init import values

UNITS = trunk()
SIZES = {"backbone_width": 8, "pyramid_channels": 16, "segment_width": 16, "max_segments": 80, "num_classes": 2}
SHAPES = preset("shapes")
SEGMENTS = dataclasses.replace(SHAPES.model, task="segments", **SIZES)


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    """Returns a work directory of segments."""
    return written(tmp_path_factory.mktemp("segments"), SEGMENTS)


def written(path, model):
    submodels = build_segment_submodels(model)
    for variable in submodels.weights_model.variables:
        variable.assign(1.5 * variable + 0.01)  # unlike those of any other model that a test builds
    path.mkdir(exist_ok=True)
    run = Workdir(path)
    run.save_weights(submodels.weights_model)
    config = dataclasses.replace(SHAPES, workdir=str(path), model=model, input=InputConfig(64, 64))
    run.prepare(config, ("disc", "ring"), (1, 2), "made up")
    return path


@contextlib.contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def equal_parts(model, source, before):
    """Returns the first words of the layers that have the weights of `source`, and of those that are as they were."""
    trained, now = read_trained_weights(source, "segments").tensors, values(model)

    def part(key):
        return key.split("/")[0] if key.startswith("segment_") else key.split("_")[0]

    taken = {part(key) for key in now if key in trained and np.array_equal(now[key], trained[key].value)}
    stays = {part(key) for key in now if np.array_equal(now[key], before[key])}
    return taken - stays, stays - taken


def test_a_backbone_of_imagenet_starts_the_papers_recipe(tmp_path):
    path = write(tmp_path / "resnet18.safetensors", torchvision_backbone(UNITS))
    config = cli.train_defaults(["train", "--task", "segments", "--preset", "paper", "--init", str(path)])
    assert (config.model.pyramid_channels, config.model.backbone, config.optimizer.learning_rate) == (
        128,
        "resnet18",
        0.03,
    )
    model = build_segment_submodels(dataclasses.replace(config.model, task="segments", segment_width=8))
    before = values(model)
    with pytest.warns(UserWarning, match="is a backbone: pyramid and heads of windows are left fresh"):
        kfpn.load_weights(model, path)
    taken, stays = equal_parts(model, path, before)
    assert {"stem", "conv2", "conv3", "conv4", "conv5"} == taken
    assert {"lateral", "output", "segment_5x5_conv", "segment_7x7_conv", "segment_mask_5x5_logits"} <= stays


@pytest.mark.parametrize("words", [[], ["--preset", "shapes"]], ids=["no preset", "shapes"])
def test_a_detector_gives_its_backbone_and_its_pyramid(coco, words):
    config = cli.train_defaults(["train", "--task", "segments", "--init", str(coco), *words])
    assert config.preset == (words[1] if words else "finetune")
    assert (config.model.pyramid_channels, config.model.padding) == (8, "zero")
    model = build_segment_submodels(dataclasses.replace(config.model, task="segments", segment_width=8))
    before = values(model)
    left = f"the heads of windows are left fresh: {coco} is a detector, whose own heads are left out"
    with pytest.warns(UserWarning, match=re.escape(left)):
        kfpn.load_weights(model, coco)
    taken, stays = equal_parts(model, coco, before)
    assert {"stem", "conv5", "lateral", "output"} <= taken
    assert stays == {
        f"segment_{name}{kind}_{last}"
        for kind in ("5x5", "7x7")
        for name, last in (("", "conv"), ("mask_", "logits"), ("score_", "logits"))
    }


def test_a_pyramid_of_other_channels_or_of_another_kind_stays_fresh(coco):
    config = cli.train_defaults(["train", "--task", "segments", "--preset", "shapes", "--init", str(coco)])
    for changes, why in (
        ({"pyramid_channels": 16}, r"left fresh: .* trained with pyramid_channels=8 \(the model has 16\)$"),
        ({"norm_heads": True}, r"left fresh: .* trained with norm_heads=False \(the model has True\)$"),
        ({"upsampling": "bilinear"}, r"left fresh: .* trained with upsampling='nearest' \(the model has 'bilinear'\)"),
    ):
        model = build_segment_submodels(dataclasses.replace(config.model, task="segments", segment_width=8, **changes))
        before = values(model)
        with pytest.warns(UserWarning, match=f"the pyramid is {why}"):
            kfpn.load_weights(model, coco)
        taken, stays = equal_parts(model, coco, before)
        assert ("lateral" in stays, "conv5" in taken) == (True, True)


def test_segments_start_from_segments(segments, tmp_path):
    config = cli.train_defaults(["train", "--task", "segments", "--init", str(segments)])
    assert config.model == dataclasses.replace(SEGMENTS, num_classes=config.model.num_classes)
    assert config.input == dataclasses.replace(InputConfig(64, 64), keep_empty=config.input.keep_empty)
    for changes, said in (
        ({}, None),
        ({"segment_windows": "7x7"}, "the heads of windows 5x5 of .* are left out: the model has none"),
        ({"segment_side": 28}, "the masks are left fresh: those of .* have 14 x 14 cells"),
    ):
        model = build_segment_submodels(dataclasses.replace(SEGMENTS, **changes))
        before = values(model)
        with pytest.warns(UserWarning, match=said) if said else no_warning():
            kfpn.load_weights(model, segments)
        taken, stays = equal_parts(model, segments, before)
        assert {"lateral", "segment_7x7_conv"} <= taken
        assert ("segment_mask_7x7_logits" in stays) == ("segment_side" in changes)
    one = written(tmp_path / "one", dataclasses.replace(SEGMENTS, segment_windows="5x5"))
    model = build_segment_submodels(SEGMENTS)
    before = values(model)
    with pytest.warns(UserWarning, match="the heads of windows 7x7 are left fresh: .* has none"):
        kfpn.load_weights(model, one)
    taken, stays = equal_parts(model, one, before)
    assert ("segment_5x5_conv" in taken, "segment_7x7_conv" in stays) == (True, True)


def test_a_run_of_segments_starts_from_a_run(segments, tmp_path, capsys):
    config = dataclasses.replace(
        SHAPES, workdir=str(tmp_path / "run"), init=str(segments), steps=1, batch_size=2, log_every=1, samples=0, jit_compile=False,
        model=SEGMENTS, input=InputConfig(64, 64),
        sampling=dataclasses.replace(SHAPES.sampling, segment_batch=32),
        optimizer=dataclasses.replace(SHAPES.optimizer, learning_rate=1e-6, warmup_steps=0),
    )  # fmt: skip
    train(config, source(0, 2, kind=with_masks))
    assert f"starts from {segments / 'detector.weights.h5'}: kfpn segments resnet18 FPN" in capsys.readouterr().out
    before, after = values(kfpn.load_segmenter(segments)), values(kfpn.load_segmenter(config.workdir))
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, atol=1e-3 if "moving" not in key else np.inf, err_msg=key)


def test_weights_of_segments_do_not_start_a_detector(segments, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert cli.main(["train", "--init", str(segments), "--workdir", run]) == 2
    assert "init must be weights of a detector, got" in (said := capsys.readouterr().err)
    assert "add --task segments" in said
    assert not (tmp_path / "run").exists()
    detector = build_submodels(dataclasses.replace(SEGMENTS, task="detections"))
    with pytest.raises(
        ValueError, match=r"workdir must hold a detector, got .*, which was trained with --task segments"
    ):
        kfpn.load_weights(detector, segments)
