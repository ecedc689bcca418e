"""Compares exports of what proposes segments with Keras: a SavedModel, and ONNX files of any and of one size."""

import json

import numpy as np
import pytest
import tensorflow as tf

import kfpn
from kfpn.cli import command_line as cli
from kfpn.export.edge_rows import EdgeRow
from kfpn.export.onnx.onnx_runtimes import in_onnxruntime
from kfpn.export.saved_model.write_saved_model import signatures_of
from kfpn.export.segment_comparison import segments_difference
from kfpn.inference.segments import segment_image
from tests.eager import eagerly
from tests.export.segment_run import COUNT, write_segment_run
from tests.modeling import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_segment_run(tmp_path_factory.mktemp("segments") / "run")


def test_a_saved_model_has_the_segments_of_keras_in_pixels_of_the_picture(run, tmp_path, encoded, capsys):
    words = ["export", "saved_model", str(run), str(tmp_path / "served"), "--signatures", "image_bytes", "--verify"]
    # The version appears only if it gives what Keras gives.
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "of 320 masks); without counterpart: 0" in said
    assert "signatures serving_default" in said
    path = tmp_path / "served" / "1"
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    pictures = [tiny.image(64, 96), tiny.image(90, 70)]  # The second one is resized.
    files = tf.constant([*map(encoded, pictures), b"no picture"])
    outputs = {name: value.numpy() for name, value in signature(image_bytes=files).items()}
    assert {name: value.shape[1:] for name, value in outputs.items()} == {
        "segment_masks": (COUNT, 14, 14), "segment_boxes": (COUNT, 4), "segment_boxes_pixels": (COUNT, 4),
        "segment_scores": (COUNT,), "segment_levels": (COUNT,), "segment_windows": (COUNT,), "num_segments": (), "errors": (),
    }  # fmt: skip
    assert outputs["num_segments"].tolist() == [COUNT, COUNT, 0]
    assert not outputs["segment_masks"][2].any()
    assert b"index 2" in outputs["errors"][2]
    model = kfpn.load_segmenter(run, padded=True)
    with eagerly():
        wanted = segment_image(model, pictures[0], model.input_config)
    np.testing.assert_allclose(outputs["segment_scores"][0], wanted.scores, atol=1e-4)
    np.testing.assert_allclose(outputs["segment_boxes_pixels"][0], wanted.boxes, atol=0.05)
    np.testing.assert_allclose(outputs["segment_masks"][0], wanted.masks, atol=1e-2)
    np.testing.assert_array_equal(outputs["segment_levels"][0], wanted.levels)
    np.testing.assert_array_equal(outputs["segment_windows"][0], wanted.windows)
    for row, picture in enumerate(pictures):
        sides = np.tile(picture.shape[:2], 2)
        np.testing.assert_allclose(
            outputs["segment_boxes"][row] * sides, outputs["segment_boxes_pixels"][row], atol=1e-3
        )
    assert wanted.boxes.min() < 0  # Windows reach beyond the picture, and are not cut off.
    assert json.loads((path / "assets" / "segments.json").read_text()) == {"pasting": "sampled"}


@pytest.mark.parametrize(
    ("shape", "changes"),
    [(None, {"segment_windows": "7x7", "segment_side": 20}), ((1, 64, 96, 3), {})],
    ids=["any", "static"],
)
def test_an_onnx_file_has_the_segments_of_keras(run, tmp_path, shape, changes):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    own = write_segment_run(tmp_path / "run", **changes) if changes else run
    # The file appears only if the runtimes give what Keras gives.
    segment = in_onnxruntime(kfpn.export_onnx(own, tmp_path / "segments.onnx", input_shape=shape))
    model = kfpn.load_segmenter(own)
    for height, width in ((64, 96),) if shape else ((64, 96), (16, 24)):
        images = tiny.image(height, width)[None].astype(np.float32)
        outputs, wanted = segment(images), tiny.detect(model, images)
        assert outputs.keys() == {*wanted, "num_segments"}
        assert outputs["num_segments"].tolist() == [min(COUNT, int((wanted["levels"] > 0).sum()))]
        for name, value in wanted.items():
            np.testing.assert_allclose(outputs[name], value, atol=1e-4, err_msg=name)
    if shape is None:
        assert outputs["num_segments"][0] == 4 * 6 + 2 * 3 + 1 * 2 + 1 + 1  # all windows of the small picture


def test_rows_of_another_level_of_another_place_and_with_another_mask_are_noticed():
    rng = np.random.default_rng(0)
    one = {
        "boxes": np.array([[[0, 0, 40, 40], [8, 8, 48, 48], [16, 0, 56, 40]]], np.float32),
        "scores": np.array([[0.9, 0.5, 0.2]], np.float32),
        "masks": rng.uniform(0, 1, (1, 3, 2, 2)).astype(np.float32),
        "levels": np.array([[3, 3, 2]], np.int32),
        "windows": np.array([[5, 7, 5]], np.int32),
        "num_segments": np.array([3], np.int32),
    }
    same = segments_difference(one, one)
    assert (same.unmatched, same.rows, same.mask, same.mask_pairs) == (0, 3, 0.0, 3)
    assert segments_difference(one, {**one, "levels": np.array([[3, 2, 2]])}).unmatched == 2
    assert segments_difference(one, {**one, "windows": np.array([[7, 7, 5]])}).unmatched == 2
    assert (
        segments_difference(one, {**one, "boxes": one["boxes"] + 1}).unmatched == 6 - 2
    )  # the last row is at the edge
    assert segments_difference(one, {**one, "num_segments": np.array([1])}).unmatched == 1
    assert segments_difference(one, {**one, "masks": one["masks"] + 0.5}).mask == pytest.approx(0.5)
    edge = segments_difference(one, {**one, "boxes": one["boxes"] + [[[0], [0], [1]]]})
    assert edge.unmatched == 0
    assert edge.edge[0] == EdgeRow("P2 5x5", pytest.approx(0.2), (16.0, 0.0, 56.0, 40.0), True, edge.edge[0].why)
    assert str(edge.edge[0]).startswith("P2 5x5, score 0.2000")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["saved_model", "{run}", "{out}", "--full-masks"], "full-masks must be left out for {run}, got True: it was"),
        (["saved_model", "{run}", "{out}", "--best-thresholds"], "best-thresholds must be left out for {run}"),
        (["saved_model", "{run}", "{out}", "--nms-on", "gpu"], "nms-on must be left out for {run}, got gpu"),
        (
            ["saved_model", "{run}", "{out}", "--signatures", "proposals", "image_bytes"],
            "signatures must be image_bytes, image_tensor for {run}, got proposals, image_bytes",
        ),
        (["onnx", "{run}", "{out}", "--int8"], "int8 must be left out for {run}, got True"),
        (["onnx", "{run}", "{out}", "--raw"], "raw must be left out for {run}, got True"),
        (["onnx", "{run}", "{out}", "--best-thresholds"], "best-thresholds must be left out for {run}, got True"),
        (["tf_trt", "{run}", "{out}"], "workdir must hold a detector, got '{run}', which was trained with --task segments"),
        (["tf_trt", "{run}", "--report"], "workdir must hold a detector, got '{run}', which was trained with --task segments"),
    ],
)  # fmt: skip
def test_what_segments_do_not_have_is_refused_in_one_line(run, tmp_path, words, message, capsys):
    out = tmp_path / "out"
    assert cli.main(["export", *(word.format(run=run, out=out) for word in words)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message.format(run=run) in said
    assert not out.exists()


def test_all_signatures_stand_for_those_that_a_run_can_have(run, tiny_workdir):
    every = ("image_bytes", "image_tensor", "proposals")
    assert signatures_of(run, every) == every[:2]
    assert signatures_of(tiny_workdir, every) == every
