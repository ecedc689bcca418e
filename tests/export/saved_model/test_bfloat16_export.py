import json

import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.asset_files import CLASSES, precision_of_saved_model
from kfpn.export.benchmark.race import contestants
from kfpn.export.saved_model import verify_saved_model as verify
from kfpn.export.saved_model.write_saved_model import export_saved_model
from kfpn.export.verify import EXPORT_LIMITS, Difference, ExportMismatch
from tests.export.segment_run import write_segment_run


@pytest.fixture(scope="module")
def in_bfloat16(mask_workdir, tmp_path_factory):
    return export_saved_model(
        mask_workdir, tmp_path_factory.mktemp("bfloat16") / "served", signatures=("image_tensor",), precision="bfloat16"
    )


def size_of_weights(path):
    return sum(file.stat().st_size for file in (path / "variables").glob("*.data-*"))


def test_a_bfloat16_export_has_float32_outputs_half_the_weights_and_says_its_precision(
    in_bfloat16, trained_masks, exported, photo
):
    signature = tf.saved_model.load(str(in_bfloat16)).signatures["image_tensor"]
    outputs = signature(images=tf.constant(photo(96, 128)[None]))
    assert {value.dtype for value in outputs.values()} == {tf.float32}
    assert outputs["num_detections"][0] > 0
    assert np.isfinite(np.concatenate([value.numpy().ravel() for value in outputs.values()])).all()
    count = trained_masks.submodels.weights_model.count_params()
    assert 2 * count < size_of_weights(in_bfloat16) < 0.6 * 4 * count
    assert json.loads((in_bfloat16 / CLASSES).read_text())["precision"] == "bfloat16"
    assert "precision" not in json.loads((exported / CLASSES).read_text())
    assert (precision_of_saved_model(in_bfloat16), precision_of_saved_model(exported)) == ("bfloat16", "float32")
    assert [one.precision for one in contestants([str(in_bfloat16), str(exported)])] == ["bfloat16", "float32"]


def test_convolutions_and_products_of_a_bfloat16_export_take_it_and_the_last_layers_float32(in_bfloat16):
    graph = tf.saved_model.load(str(in_bfloat16)).signatures["image_tensor"].graph.as_graph_def()
    nodes = [node for function in graph.library.function for node in function.node_def]
    kinds = {
        kind: [node.attr["T"].type for node in nodes if node.op == kind]
        for kind in ("Conv2D", "MatMul", "NonMaxSuppressionV3")
    }
    low, full = tf.bfloat16.as_datatype_enum, tf.float32.as_datatype_enum
    assert set(kinds["Conv2D"]) == {low}
    assert set(kinds["MatMul"]) == {low, full}


def test_segments_are_exported_in_bfloat16_too(tmp_path, photo):
    run = write_segment_run(tmp_path / "run")
    path = export_saved_model(run, tmp_path / "served", signatures=("image_tensor",), precision="bfloat16")
    outputs = tf.saved_model.load(str(path)).signatures["image_tensor"](images=tf.constant(photo(64, 96)[None]))
    assert outputs["num_segments"][0] > 0
    assert {value.dtype for value in outputs.values()} == {tf.float32}
    assert precision_of_saved_model(path) == "bfloat16"


def test_more_detections_may_be_without_counterpart_in_bfloat16_but_not_many():
    limits = EXPORT_LIMITS["bfloat16"]
    few, many = (Difference(rows=100, unmatched=int(100 * limits.unmatched) + extra) for extra in (0, 1))
    verify._require_equal({"image_tensor": few}, limits)
    with pytest.raises(ExportMismatch, match=rf"boxes within {limits.box} pixels and scores within {limits.score} of"):
        verify._require_equal({"image_tensor": many}, limits)
    with pytest.raises(ExportMismatch, match="1 of 100 rows"):
        verify._require_equal({"image_tensor": Difference(rows=100, unmatched=1)}, EXPORT_LIMITS["float32"])
