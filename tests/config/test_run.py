import dataclasses
import json
import math

import pytest

from kfpn.config.model import ModelConfig
from kfpn.config.presets import PRESETS, preset
from kfpn.config.run import Config, InputConfig, OptimizerConfig, SamplingConfig, from_dict, to_dict


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_the_same_after_json_and_has_its_name(name):
    config = preset(name)
    assert config.preset == name
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_the_coco_preset_has_the_1x_schedule():
    config = preset("coco")
    assert (config.steps, config.batch_size, config.optimizer.learning_rate) == (90_000, 16, 0.02)
    assert [round(share * config.steps) for share in config.optimizer.milestones] == [60_000, 80_000]
    assert (config.input.short_side, config.input.long_side) == (800, 1333)
    assert config.model.anchor_sizes == (32, 64, 128, 256, 512)
    assert (config.sampling.rpn_batch, config.sampling.roi_batch) == (256, 512)


def test_missing_keys_take_their_defaults():
    config = from_dict(Config, {"steps": 5, "model": {"backbone": "resnet18"}})
    assert config == dataclasses.replace(Config(), steps=5, model=ModelConfig(backbone="resnet18"))


def test_lists_become_tuples():
    config = from_dict(Config, {"model": {"aspect_ratios": [0.5, 1.0]}})
    assert config.model.aspect_ratios == (0.5, 1.0)
    assert hash(config) == hash(dataclasses.replace(Config(), model=ModelConfig(aspect_ratios=(0.5, 1.0))))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 1}, "unknown option 'step'; did you mean 'steps'"),
        ({"nonsense_": 1}, "unknown option 'nonsense_'; known are "),
        ({"model": {"backbon": "resnet18"}}, "unknown option model.'backbon'; did you mean model.'backbone'"),
        ({"optimizer": {"lerning_rate": 1.0}}, "did you mean optimizer.'learning_rate'"),
    ],
)
def test_the_error_for_an_unknown_key_names_the_nearest_key(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Config, values)


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("coco").steps = 1  # type: ignore[misc]


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"preset must be one of coco, .*shapes, got 'voc'"):
        preset("voc")


@pytest.mark.parametrize(
    ("cls", "name", "bad", "good"),
    [
        (Config, "steps", [0, -1, 1.5, True, "1"], [1]),
        (Config, "batch_size", [0, 2.0], [1]),
        (Config, "samples", [-1], [0]),
        (Config, "seed", [-1, 2**31], [0, 2**31 - 1]),
        (Config, "strategy", ["tpu"], ["one_device", "mirrored"]),
        (Config, "precision", ["float16"], ["mixed_float16"]),
        (Config, "data", [""], ["shapes"]),
        (Config, "augment", ["a", "a:", ":b", "a.py:b", "a b:c", "a:b.c"], [None, "a:b", "a.b:c"]),
        (Config, "workdir", [""], ["w"]),
        (ModelConfig, "num_classes", [0, True], [1]),
        (ModelConfig, "backbone", ["resnet20"], ["resnet152"]),
        (ModelConfig, "norm", ["ln"], ["gn", "sync_bn"]),
        (ModelConfig, "stride_on", ["2x2"], ["3x3"]),
        (ModelConfig, "freeze_stages", [-1, 6], [0, 5]),
        (ModelConfig, "anchor_sizes", [(32.0,), (0.0, 1.0, 2.0, 3.0, 4.0)], [(8.0, 16.0, 32.0, 64.0, 128.0)]),
        (ModelConfig, "aspect_ratios", [(), (0.0,), (math.nan,), (math.inf,)], [(1.0,)]),
        (ModelConfig, "norm_epsilon", [-1e-5, math.nan, math.inf], [0.0, 1e-3]),
        (ModelConfig, "anchor_strides", ["cell", None], ["level", "image"]),
        (ModelConfig, "min_proposal_size", [-1.0, math.nan], [0.0, 1e-3]),
        (ModelConfig, "min_detection_size", [-1.0, math.nan], [0.0, 1e-2]),
        (ModelConfig, "sampling_ratio", [-1, 1.0, True], [0, 1]),
        (ModelConfig, "nms_iou", [-0.1, 1.1, math.nan], [0.0, 1.0]),
        (ModelConfig, "score_threshold", [-0.1, 2.0], [0.0]),
        (ModelConfig, "pixel_std", [(1.0, 1.0), (0.0, 1.0, 1.0)], [(1.0, 1.0, 1.0)]),
        (InputConfig, "short_side", [31, 800.0], [32]),
        (InputConfig, "long_side", [799], [800]),
        (InputConfig, "scale_jitter", [(1.5, 1.0), (0.0, 1.0), (1.0, 11.0)], [(0.5, 2.0)]),
        (InputConfig, "large_scale_jitter", [(1.0,), (2.0, 0.1), (0.0, 1.0)], [(), (0.1, 2.0)]),
        (InputConfig, "crop", [-0.1, 1.1], [0.0, 1.0]),
        (InputConfig, "crop_area", [(0.0, 1.0), (1.0, 0.5), (0.5, 1.5), (0.5,)], [(0.5, 0.5)]),
        (InputConfig, "crop_keep", [0.0, 1.1, math.nan], [1.0]),
        (InputConfig, "flip_vertical", [-0.1, 1.1], [1.0]),
        (InputConfig, "turn", [-0.1, 1.1], [1.0]),
        (
            InputConfig,
            "color_jitter",
            [(1.1,), (0.1, 0.1), (-0.1,), (1.0, 1.0, 1.0, 0.6)],
            [(), (0.4,), (1.0, 1.0, 1.0, 0.5)],
        ),
        (InputConfig, "repeat_threshold", [-0.1, 1.1], [0.0, 0.001]),
        (InputConfig, "train_short_sides", [(31,), (800, 1334), (640.0,), (True,)], [(), (640, 800), (1333,)]),
        (InputConfig, "flip", [-0.1, 1.1], [0.0, 1.0]),
        (InputConfig, "divisor", [0], [1]),
        (InputConfig, "max_canvases", [0], [1]),
        (SamplingConfig, "rpn_negative_iou", [0.8, -0.1], [0.7]),
        (SamplingConfig, "rpn_positive_fraction", [0.0, 1.1], [1.0]),
        (SamplingConfig, "roi_batch", [0], [1]),
        (SamplingConfig, "roi_box_beta", [-1.0], [0.0]),
        (OptimizerConfig, "learning_rate", [0.0, -1.0, math.nan, math.inf], [1e-6]),
        (OptimizerConfig, "momentum", [1.0, -0.1], [0.0]),
        (OptimizerConfig, "milestones", [(0.8, 0.2), (0.0,), (1.0,)], [(), (0.5,)]),
        (OptimizerConfig, "schedule", ["linear"], ["cosine"]),
        (OptimizerConfig, "clip_norm", [0.0, -1.0], [None, 1.0]),
        (OptimizerConfig, "ema_decay", [1.0], [0.0]),
    ],
)
def test_a_bad_value_of_a_field_is_refused_by_the_fields_name(cls, name, bad, good):
    for value in good:
        assert getattr(cls(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(ValueError, match=rf"{name} must .*, got "):
            cls(**{name: value})


def test_group_norm_needs_a_width_that_is_a_multiple_of_32():
    with pytest.raises(ValueError, match=r"model\.backbone_width must be a multiple of 32 with norm gn"):
        ModelConfig(norm="gn", backbone_width=48)
    assert ModelConfig(norm="bn", backbone_width=48).backbone_width == 48


def test_large_scale_jitter_is_instead_of_scale_jitter():
    with pytest.raises(
        ValueError, match=r"input\.scale_jitter must be 1 1 with input\.large_scale_jitter, got \(0\.5, 1\.0\): leave"
    ):
        InputConfig(large_scale_jitter=(0.1, 2.0), scale_jitter=(0.5, 1.0))


@pytest.mark.parametrize(
    "field", [{"crop": 0.5}, {"large_scale_jitter": (0.1, 2.0)}, {"flip_vertical": 0.5}, {"turn": 0.5}]
)
def test_fixed_proposals_refuse_what_moves_boxes(field):
    name = next(iter(field))
    with pytest.raises(ValueError, match=rf"input\.{name} must be off with fixed proposals, got p\.npz: "):
        Config(proposals="p.npz", input=InputConfig(**field))
    with pytest.raises(ValueError, match=r"augment must be off with fixed proposals"):
        Config(proposals="p.npz", augment="a:b")
    assert Config(proposals="p.npz", input=InputConfig(color_jitter=(0.4,), repeat_threshold=0.1)).proposals


@pytest.mark.parametrize(
    ("augment", "hint"),
    [
        ("my.py:shake", "write my:shake"),
        ("./sub/my.py:shake", "write sub.my:shake"),
        ("shake", "my_augment:change is change in"),
    ],
)
def test_the_form_of_a_function_name_is_shown(augment, hint):
    with pytest.raises(ValueError, match=f"augment must be module:function, got .*: {hint}"):
        Config(augment=augment)
