"""The rules of the preset `auto` for networks that propose segments: sizes of levels, widths, rates and weights."""

import dataclasses

import pytest

from kfpn.config.auto_facts import WeightFacts
from kfpn.config.unused_options import OF_DETECTORS
from kfpn.weights.brought_settings import fields_for_segments
from tests.config.test_auto_rules import BACKBONE, GPU, chosen, data


def segments(facts, *machine, **given):
    return chosen(facts, *machine, model__task="segments", **given)


def test_on_a_cpu_segments_have_the_small_network_with_its_weights_and_a_rate_of_their_own():
    config, lines = segments(data())
    model, detector = config.model, chosen(data())[0]
    assert (model.task, model.backbone, model.backbone_width, model.pyramid_channels) == (
        "segments",
        "resnet18",
        32,
        64,
    )
    assert (config.optimizer.learning_rate, config.optimizer.reference_batch, detector.optimizer.learning_rate) == (
        0.2,
        4,
        0.1,
    )
    assert (config.init, config.input, config.batch_size) == ("kfpn:small", detector.input, detector.batch_size)
    assert segments(data(), init=None)[0].init is None
    assert segments(data(), model__pyramid_channels=128)[0].init is None
    said = " ".join(map(str, lines))
    assert not [name for name in OF_DETECTORS if f"--{name.replace('_', '-')}" in said]
    assert not {"detections", "proposals", "RoIs in the loss", "anchors", "pooling", "rare classes"} & {
        line.what for line in lines
    }


def test_on_a_gpu_and_behind_a_backbone_the_pyramid_and_the_rate_are_the_papers():
    for config, _ in (segments(data(), GPU), segments(data(), GPU, BACKBONE)):
        assert (config.model.pyramid_channels, config.optimizer.learning_rate) == (128, 0.03)
        assert config.optimizer.reference_batch == 16


@pytest.mark.parametrize(
    ("side", "least"),
    # A tenth of the objects is below .92 times the side. 416 x 416 images are seen at 320: .769 of it.
    [(130.0, 32.0), (36.0, 25.5), (20.0, 15.2), (5.0, 8.0)],
)
def test_the_finest_level_is_for_the_smallest_tenth_and_each_further_one_for_twice_the_size(side, least):
    config, lines = segments(data(side, image=(416, 416)), input__short_side=320, input__long_side=320)
    expected = least if side in (130.0, 5.0) else 0.92 * side * 320 / 416
    assert config.model.anchor_sizes[0] == pytest.approx(expected, rel=0.01)
    for size, next_size in zip(config.model.anchor_sizes, config.model.anchor_sizes[1:], strict=False):
        assert next_size == pytest.approx(2 * size, rel=0.01)
    (line,) = [line for line in lines if line.what == "sizes of segments"]
    assert "a tenth of the objects has a larger side of" in line.reason


def test_the_larger_side_counts():
    tall, square = (
        segments(data(20.0, image=(416, 416), ratio=ratio), input__short_side=320, input__long_side=320)[0].model
        for ratio in (4.0, 1.0)
    )
    assert tall.anchor_sizes[0] == pytest.approx(2 * square.anchor_sizes[0], rel=0.02)


def test_given_sizes_and_those_of_trained_segments_stay():
    sizes = (16.0, 32.0, 64.0, 128.0, 256.0)
    assert segments(data(), model__anchor_sizes=sizes)[0].model.anchor_sizes == sizes
    own = chosen(data(), model__task="segments", model__anchor_sizes=sizes)[0].model
    weights = WeightFacts(fields_for_segments(vars(own)), {}, {}, is_detector=True)
    config, lines = segments(data(200.0), GPU, weights)
    assert config.model == dataclasses.replace(own, num_classes=config.model.num_classes)
    assert "sizes of segments: as the weights bring them" in map(str, lines)


def test_the_pyramid_of_a_detector_stays_and_its_sizes_are_chosen_anew():
    fields = fields_for_segments({"num_classes": 80, "backbone": "resnet50", "pyramid_channels": 256})
    config, lines = segments(data(100.0), GPU, WeightFacts(fields, {}, {}, is_detector=True))
    assert (config.model.pyramid_channels, config.optimizer.learning_rate) == (256, 0.03)
    assert "sizes of segments" in {line.what for line in lines}
