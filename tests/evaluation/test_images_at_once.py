import dataclasses

import pytest
import tensorflow as tf

from kfpn.config.run import Config, InputConfig
from kfpn.data.out_of_memory import OutOfMemoryError
from kfpn.evaluation import compilation, images_at_once
from kfpn.evaluation.compilation import worth_compiling
from kfpn.evaluation.detect import detect_source
from kfpn.evaluation.images_at_once import ImagesAtOnce, choose_images_at_once, images_by_memory
from kfpn.evaluation.source_pass import SourcePass
from tests.evaluation.test_detect import CONFIG, Empty, Source, lower_right
from tests.training import made_up

GB = 10**9


@pytest.mark.parametrize(
    ("memory", "most", "images"),
    [(16 * GB, 16, 10), (80 * GB, 16, 16), (80 * GB, 64, 53), (11 * GB, 16, 7), (1 * GB, 16, 1), (0, 16, 1)],
)
def test_images_at_once_fill_four_fifths_of_the_memory(memory, most, images):
    assert images_by_memory(1.2e9, memory, most) == images


def given(monkeypatch, **memory):
    monkeypatch.setattr(images_at_once, "device_memory", lambda name: memory[name.split(":")[-2].lower()])


def chosen(devices=(), **settings):
    # A picture of 64 x 64 pixels becomes 800 x 800: 0.71 GB by the rule.
    config = dataclasses.replace(Config(), **settings)
    return choose_images_at_once(made_up.source(0, 4), config, devices=devices)


def test_memory_pixels_and_width_decide_and_the_training_batch_limits(monkeypatch):
    given(monkeypatch, gpu=16 * GB, cpu=6 * GB)
    assert chosen(["GPU:0"]).images == 16
    assert chosen(["GPU:0"], batch_size=64).images == 17
    assert chosen(["GPU:0"], batch_size=64, input=InputConfig(1600, 1600)).images == 4
    wide = dataclasses.replace(Config().model, backbone_width=128)
    assert chosen(["GPU:0"], batch_size=64, model=wide).images == 8
    assert (chosen(["GPU:0", "GPU:1"]).images, chosen(["GPU:0", "GPU:1"]).rows) == (16, 32)


def test_replicas_on_cpus_share_the_memory(monkeypatch):
    given(monkeypatch, cpu=6 * GB)
    assert chosen(["/job:localhost/replica:0/task:0/device:CPU:0"]).images == 6
    assert chosen(["CPU:0", "CPU:1", "CPU:2"]).images == 2


def test_an_unknown_memory_counts_as_small_and_a_number_that_is_asked_for_counts(monkeypatch):
    given(monkeypatch, gpu=None)
    assert chosen(["GPU:0"]).images == 4
    assert chosen(["GPU:0"], eval_batch_size=40).images == 40
    with pytest.raises(ValueError, match="eval_batch_size must be an integer of at least 1, or None, got 0"):
        Config(eval_batch_size=0)


def small_memory(most, sizes):
    """Stands in for a detector on a device whose memory takes `most` images."""

    def model(inputs):
        sizes.append(inputs["images"].shape[0])
        if sizes[-1] > most:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return lower_right(inputs)

    model.get_concrete_function = None  # as a compiled function, so that the error comes as it is
    return model


def test_where_memory_is_used_up_the_rest_goes_on_in_halves_with_the_same_answer():
    source = made_up.source(0, 7)
    usual = detect_source(lower_right, SourcePass(source, CONFIG, progress=False))
    sizes, told = [], []
    at_once = ImagesAtOnce(5, tell=told.append)
    detections = detect_source(small_memory(2, sizes), SourcePass(source, CONFIG, progress=False, at_once=at_once))
    assert sizes == [5, 2, 2, 2, 2]
    assert [row["image_id"] for row in detections] == [row["image_id"] for row in usual] == list(range(7))
    assert all((a["boxes"] == b["boxes"]).all() for a, b in zip(detections, usual, strict=True))
    assert told == ["memory is not enough to evaluate 5 images of 128 x 128 pixels at once: goes on with 2 at once"]
    assert at_once.images == 2


def test_memory_that_is_used_up_later_loses_no_image():
    sizes = []

    def model(inputs):
        sizes.append(inputs["images"].shape[0])
        if sizes == [4, 4]:
            raise MemoryError
        return lower_right(inputs)

    model.get_concrete_function = None
    one = SourcePass(made_up.source(0, 9), CONFIG, progress=False, at_once=ImagesAtOnce(4))
    assert [row["image_id"] for row in detect_source(model, one)] == list(range(9))
    assert sizes == [4, 4, 2, 2, 2]


def test_one_image_without_memory_is_an_error_that_names_options_and_replicas_are_named():
    told = []
    at_once = ImagesAtOnce(2, replicas=8, tell=told.append)
    at_once.halve((800, 1344), MemoryError())
    assert told[0].endswith("at once on each of 8 devices: goes on with 1 at once")
    with pytest.raises(
        OutOfMemoryError, match=r"enough for 1 image of 800 x 1344 pixels at once, .*--input.short-side"
    ):
        at_once.halve((800, 1344), MemoryError())


def test_an_empty_source_and_a_batch_size_of_zero_are_left_to_who_takes_the_images():
    assert choose_images_at_once(Empty(), CONFIG).images == 2
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, got 0"):
        choose_images_at_once(Source(), CONFIG, 0)


def test_only_long_evaluations_on_gpus_are_compiled(monkeypatch):
    source, gpus = made_up.source(0, 10), ("GPU:0", "GPU:1")
    assert worth_compiling(source, CONFIG, devices=gpus, times=50)
    assert not worth_compiling(source, CONFIG, devices=gpus, times=49)
    assert not worth_compiling(source, CONFIG, devices=("CPU:0",), times=50)
    off = dataclasses.replace(CONFIG, jit_compile=False)
    assert not worth_compiling(source, off, devices=gpus, times=50)
    monkeypatch.setattr(compilation, "default_device", lambda: "GPU:0")
    assert worth_compiling(source, CONFIG, times=50)
