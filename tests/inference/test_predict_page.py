"""Runs the Python of docs/predict.md on a made-up video, with a detector that finds its square."""

import re
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kfpn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "predict.md"
SIDE = 96


def scene(left):
    """Returns a dark picture of 96 x 96 pixels with a bright square of 20 whose left side is given."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[30:50, left : left + 20] = 250
    return pixels


@tf.function
def find_square(inputs):
    """Detects the bright square of each image."""
    bright = tf.reduce_mean(tf.cast(inputs["images"], tf.float32), -1) > 125

    def box(one):
        places = tf.cast(tf.where(one), tf.float32)
        return tf.concat([tf.reduce_min(places, 0), tf.reduce_max(places, 0) + 1.0], 0)

    boxes = tf.map_fn(box, bright, fn_output_signature=tf.float32)
    rows = tf.shape(boxes)[0]
    return {
        "boxes": boxes[:, None], "scores": tf.fill([rows, 1], 0.9), "labels": tf.zeros([rows, 1], tf.int32),
        "num_detections": tf.ones([rows], tf.int32),
    }  # fmt: skip


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Returns the function that runs the block of the page that has a word, and gives what it prints."""
    model = types.SimpleNamespace(
        class_names=("square",), category_ids=(4,), input_config=kfpn.InputConfig(SIDE, SIDE), input={},
        compiled_detector=find_square,
    )  # fmt: skip
    monkeypatch.setattr(kfpn, "load_detector", lambda source, padded=False: model)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene(20)).save(tmp_path / "photo.jpg", quality=95)

    def run(word):
        (block,) = [text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if word in text]
        exec(compile(block, str(PAGE), "exec"), {})
        return capsys.readouterr().out

    return run


def test_an_image_is_detected_drawn_and_given_to_coco(printed):
    assert re.match(r"square 0\.9\d* \[(29|30)\.? +(19|20)\.? +(50|51)\.? +(40|41)\.?\]\n$", printed("to_coco"))


def test_supervision_says_what_stands_in_a_zone(printed):
    pytest.importorskip("supervision", reason="needs the extra supervision")
    assert printed("PolygonZone") == "['square']\n"


def test_a_tracker_and_a_line_of_supervision_count_what_crosses(printed, tmp_path):
    pytest.importorskip("av", reason="needs PyAV, the extra video")
    pytest.importorskip("trackers", reason="needs trackers and OpenCV", exc_type=ImportError)
    from kfpn.inference.video_writer import VideoWriter

    video = VideoWriter(tmp_path / "street.mp4", Fraction(10))
    for number in range(35):
        video.add(scene(2 * number), number / 10)
    video.close()
    assert printed("LineZone") in ("to the right: 1, to the left: 0\n", "to the right: 0, to the left: 1\n")
