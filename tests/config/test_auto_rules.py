"""The rules of the preset `auto`: what they choose from facts, that a given option stays, and that every choice is a configuration."""

import dataclasses
import itertools

import numpy as np
import pytest

from kfpn.config.auto_draft import Draft, as_option, nested, with_settings
from kfpn.config.auto_facts import DataFacts, Facts, MachineFacts, WeightFacts
from kfpn.config.auto_rules import CHOSEN, choose_settings
from kfpn.config.run import Config

CPU = MachineFacts(cores=2)
GPU = MachineFacts(cores=16, gpus=1, gpu_memory=80 * 2**30, fast_bfloat16=True)
DETECTOR = WeightFacts({"num_classes": 80, "backbone": "resnet50"}, {"roi_box_beta": 0.0}, {}, is_detector=True)
BACKBONE = WeightFacts({"backbone": "resnet101"}, {}, {}, is_detector=False)


def data(side=60.0, image=(480, 640), images=600, objects=3, ratio=1.0):
    """Returns facts of equal images with objects of nearly equal sides."""
    sides = np.linspace(0.9, 1.1, 100)[:, None] * side * np.array([[ratio**0.5, ratio**-0.5]])
    corner = np.linspace(0, 1, 100)[:, None] * (np.array(image) - sides)
    counts = np.full(images, objects)
    sizes = np.full((100, 2), image)
    return DataFacts(images, sizes, np.concatenate([corner, corner + sides], axis=1), sizes, counts, np.array([1.0]))


def chosen(facts, machine=CPU, weights=None, **given):
    """Returns the configuration with what the rules choose; "__" stands for the dot of a section."""
    given = {name.replace("__", "."): value for name, value in given.items()}
    choices = choose_settings(Facts(facts, machine, weights), given)
    return with_settings(Config(), weights.settings if weights else {}, choices.settings, nested(given)), choices.lines


def test_random_weights_on_a_cpu_have_the_small_network_with_norms_that_train():
    config, _ = chosen(data())
    model = config.model
    assert (model.backbone, model.backbone_width, model.pyramid_channels, model.head_width) == ("resnet18", 32, 64, 256)
    assert (model.norm, model.norm_heads, model.freeze_stages) == ("bn", True, 0)
    assert (config.batch_size, config.precision) == (4, "float32")
    assert config.optimizer.schedule == "cosine"


def test_random_weights_on_a_gpu_have_the_papers_network_with_group_norm():
    config, _ = chosen(data(), GPU)
    assert (config.model.backbone, config.model.backbone_width, config.model.norm) == ("resnet50", 64, "gn")
    assert config.model.freeze_stages == 0


def test_the_input_is_as_large_as_the_objects_need_and_no_larger_than_the_images():
    sides = [chosen(data(side))[0].input.short_side for side in (300.0, 150.0, 100.0, 60.0)]
    assert sides == sorted(sides)
    assert sides[0] == 128
    assert chosen(data(30.0, image=(200, 200)))[0].input.short_side == 192
    assert chosen(data(30.0, image=(96, 128)))[0].input.short_side == 96


def test_a_cpu_has_fewer_pixels_than_a_gpu_and_more_for_small_objects():
    small, large = data(12.0, image=(1000, 1500)), data(80.0, image=(1000, 1500))
    assert (
        chosen(large)[0].input.short_side < chosen(small)[0].input.short_side < chosen(small, GPU)[0].input.short_side
    )
    assert chosen(small, GPU)[0].input.short_side <= 800


def test_the_long_side_holds_the_images_and_strips_are_cut_at_twice_the_short_side():
    assert chosen(data(60.0))[0].input == dataclasses.replace(Config().input, short_side=320, long_side=448)
    strips = chosen(data(60.0, image=(300, 3000)))[0].input
    assert strips.long_side == 2 * strips.short_side


def test_anchors_are_fitted_and_the_canonical_size_goes_with_them():
    config, lines = chosen(data(30.0, image=(320, 320)))
    seen = 30.0 * config.input.short_side / 320
    assert min(abs(np.log(size / seen)) for size in config.model.anchor_sizes) < 0.15
    assert config.model.canonical_size == round(1.75 * config.model.anchor_sizes[2])
    (line,) = [line for line in lines if line.what == "anchors"]
    assert "by .5 and" in line.reason
    assert "places included; the fields' own ones" in line.reason


def test_objects_that_are_long_have_more_aspect_ratios_where_the_rpn_is_new():
    assert chosen(data(), GPU)[0].model.aspect_ratios == (0.5, 1.0, 2.0)
    assert chosen(data(ratio=4.0), GPU)[0].model.aspect_ratios == (0.25, 0.5, 1.0, 2.0, 4.0)
    assert chosen(data(ratio=4.0), init=None)[0].model.aspect_ratios == (0.25, 0.5, 1.0, 2.0, 4.0)
    assert chosen(data(ratio=4.0))[0].model.aspect_ratios == (0.5, 1.0, 2.0)  # of the weights in the package


@pytest.mark.parametrize(
    ("machine", "given"),
    [
        (GPU, {}),
        (CPU, {"init": None}),
        (CPU, {"model__backbone_width": 64}),
        (CPU, {"model__norm": "gn"}),
        (CPU, {"batch_size": 1}),
        (CPU, {"model__p6": False, "model__anchor_sizes": (10.0, 20.0, 40.0, 80.0)}),
        (CPU, {"model__aspect_ratios": (1.0,)}),
        (CPU, {"proposals": "proposals.npz"}),
    ],
)
def test_the_weights_in_the_package_are_for_their_network_on_a_cpu_alone(machine, given):
    assert chosen(data())[0].init == "kfpn:small"
    assert chosen(data(), machine, **given)[0].init is None


def test_the_weights_in_the_package_are_taken_on_a_gpu_if_they_are_asked_for():
    config, _ = chosen(data(), GPU, init="kfpn:small")
    assert config.init == "kfpn:small"
    assert (config.model.backbone, config.model.backbone_width, config.model.norm) == ("resnet18", 32, "bn")


def test_crowded_images_have_more_detections_proposals_and_rois():
    assert chosen(data(objects=66))[0].model.max_detections == 100
    config, lines = chosen(data(objects=240))
    assert config.model.max_detections == 400  # 1.5 x 240 is 360
    assert min(config.model.post_nms_test, config.model.post_nms_train, config.model.pre_nms_test) == 800
    assert config.sampling.roi_batch == 512
    assert "the fullest image has 240 objects" in [line.reason for line in lines]


def test_a_detectors_weights_keep_its_network_its_anchors_and_its_size():
    config, lines = chosen(data(20.0), GPU, DETECTOR)
    assert config.model == dataclasses.replace(Config().model, **DETECTOR.model)
    assert (config.sampling.roi_box_beta, config.input) == (0.0, Config().input)
    assert config.optimizer.learning_rate == 0.02
    assert config.optimizer.ema_decay == 0.0
    assert any(line.what == "anchors" and "as the weights bring them: they overlap" in line.reason for line in lines)


def test_a_detectors_weights_have_a_smaller_input_on_a_cpu_as_long_as_their_anchors_overlap_the_objects():
    def sides(side, **given):
        config, lines = chosen(data(side, image=(800, 1066)), CPU, DETECTOR, **given)
        (line,) = [line for line in lines if line.what == "input size"]
        return (config.input.short_side, config.input.long_side), line.reason

    (size, reason) = sides(320.0)
    assert size == (320, 544)  # objects of 128 pixels then, one of the anchors' sizes
    assert "pixels cost 6.2 times as much; objects overlap their best anchors by" in reason
    # The smallest anchor has 32 pixels: objects that are smaller lose at any smaller size.
    assert sides(42.0)[0] == (512, 864)  # at 416 pixels they have 22
    assert sides(20.0)[0] == (800, 1333)
    assert sides(300.0, input__short_side=640) == ((640, 1333), "as it is given, short side 640")
    assert sides(300.0, input__train_short_sides=(640, 800))[0] == (800, 1333)
    assert "short side 800" in sides(20.0)[1]


def test_images_of_rare_classes_are_taken_more_often_where_classes_are_uneven():
    def threshold(*shares, **given):
        config, lines = chosen(dataclasses.replace(data(), class_shares=np.array(shares)), **given)
        return config.input.repeat_threshold, [line.reason for line in lines if line.what == "rare classes"]

    assert threshold(0.9, 0.8, 0.3) == (0.0, [])
    assert threshold(0.9, 0.8, 0.0) == (0.0, [])  # a class that no image has can't be taken more often
    bound, reasons = threshold(0.9, 0.8, 0.7, 0.01)
    assert bound == pytest.approx(0.1875, abs=1e-3)  # a quarter of .75
    assert reasons == ["1 class is in less than 18.75% of the images, a quarter of the median class's share"]
    assert threshold(0.9, 0.8, 0.7, 0.01, input__repeat_threshold=0.0) == (0.0, [])


def test_a_backbones_weights_keep_the_backbone_and_its_norm_alone():
    config, _ = chosen(data(20.0), CPU, BACKBONE)
    assert (config.model.backbone, config.model.norm) == ("resnet101", "frozen_bn")
    assert config.model.anchor_sizes != Config().model.anchor_sizes
    assert config.input.short_side < 800


def test_steps_rise_with_the_images_between_a_least_and_a_most():
    steps = [chosen(data(images=images))[0].steps for images in (10, 1000, 2000, 10**6)]
    assert steps == sorted(steps)
    assert steps[0] == 3000
    assert steps[1] < steps[2] < steps[3] == 20_000


def test_evaluations_and_the_schedule_follow_the_steps():
    config, _ = chosen(data(), steps=600)
    assert (config.steps, config.eval_every) == (600, 100)
    assert config.checkpoint_every <= 100
    assert config.optimizer.warmup_steps == 18
    assert config.optimizer.ema_decay == pytest.approx(1 - 1 / 18, abs=1e-4)
    assert chosen(data(), steps=1)[0].optimizer.ema_decay == 0.9


# ------------------------------------------------------------------------------------------------ what is given


def test_a_given_option_stays_is_not_said_and_the_rules_reckon_with_it():
    config, lines = chosen(data(30.0), input__short_side=128, batch_size=8)
    assert (config.input.short_side, config.input.long_side, config.batch_size) == (128, 192, 8)
    assert "batch" not in [line.what for line in lines]
    assert not any("--input.short-side" in line.value for line in lines)
    free, _ = chosen(data(30.0))
    assert config.model.anchor_sizes != free.model.anchor_sizes  # fitted at 128 pixels
    assert config.steps <= free.steps


def test_a_given_option_stays_where_it_is_the_fields_default():
    assert chosen(data(), model__norm="frozen_bn", batch_size=16)[0].model.norm == "frozen_bn"


def test_a_long_side_that_is_given_is_a_limit_of_the_short_side():
    assert chosen(data(20.0), input__long_side=200)[0].input.short_side == 200


@pytest.mark.parametrize(
    "given",
    [
        {"model__p6": False},
        {"model__pyramid": "c4"},
        {"model__pyramid": "finest", "model__anchor_sizes": (8.0, 16.0, 32.0)},
        {"model__backbone_width": 8},
        {"batch_size": 1},
        {"batch_size": 1, "model__backbone_width": 8},
        {"model__aspect_ratios": (1.0,)},
        {"input__train_short_sides": (320, 700)},
        {"model__norm": "gn"},
        {"model__max_detections": 300},
        {"accumulate": 4},
    ],
)
def test_the_choice_goes_with_what_is_given(given):
    for machine, weights in itertools.product((CPU, GPU), (None, DETECTOR, BACKBONE)):
        if weights is DETECTOR and given == {"model__p6": False}:
            continue  # The anchors of the weights have five sizes: this is an error, as with any preset.
        config, _ = chosen(data(), machine, weights, **given)
        for name, value in given.items():
            section, _, field = name.rpartition("__")
            assert getattr(getattr(config, section) if section else config, field) == value


def _flat_names(settings):
    for name, value in settings.items():
        yield from (f"{name}.{field}" for field in value) if isinstance(value, dict) else [name]


@pytest.mark.parametrize(
    "machine", [CPU, GPU, MachineFacts(64), MachineFacts(8, 8, None), MachineFacts(4, 3, 4 * 2**30)]
)
@pytest.mark.parametrize(
    "facts",
    [
        data(images=1), data(2.0), data(479.0), data(images=2, image=(32, 32), side=20.0), data(image=(1, 3000), side=1.0),
        data(objects=5000), data(ratio=40.0, side=10.0), dataclasses.replace(data(), boxes=np.zeros((0, 4)), box_image_sizes=np.zeros((0, 2))),
    ],
)  # fmt: skip
def test_any_facts_give_a_configuration(facts, machine):
    assert set(_flat_names(choose_settings(Facts(facts, machine)).settings)) <= CHOSEN
    config, lines = chosen(facts, machine)
    assert config.batch_size % max(machine.gpus, 1) == 0
    assert all(line.reason for line in lines)
    assert all("\n" not in str(line) and "nan" not in str(line) for line in lines)


# ------------------------------------------------------------------------------------------------ lines


def test_settings_are_written_as_options():
    assert as_option("input.train_short_sides", (320, 400)) == "--input.train-short-sides 320 400"
    assert (as_option("model.norm_heads", True), as_option("jit_compile", False)) == (
        "--model.norm-heads",
        "--no-jit-compile",
    )
    assert as_option("model.p6", False) == "--model.no-p6"
    assert as_option("sampling.roi_box_beta", 1 / 9) == "--sampling.roi-box-beta 0.1111"


def test_a_draft_gives_what_is_given_before_what_is_chosen_before_the_base():
    draft = Draft({"a": 1, "b": 1, "c": 1}, {"a": 3})
    draft.put("letters", {"a": 2, "b": 2}, "why")
    assert (draft["a"], draft["b"], draft["c"], draft.chosen) == (3, 2, 1, {"b": 2})
    assert [str(line) for line in draft.lines] == ["letters: --b 2 (why)"]
    with pytest.raises(KeyError):
        draft["d"]
