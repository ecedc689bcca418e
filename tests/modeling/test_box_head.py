import numpy as np
import pytest

from kfpn.modeling.heads.box import SelectDetections

# Three RoIs far apart in an image of 64 x 64: they are 8 x 8, 8 x 0.5 and, after clipping, 8 x 0.25. There is one class.
ROIS = np.array([[[0, 0, 8, 8], [20, 20, 28, 20.5], [40, 63.75, 48, 70]]], "float32")


def detect(layer):
    logits, deltas = np.array([[3.0, 0], [2, 0], [1, 0]], "float32"), np.zeros((3, 1, 4), "float32")
    detections = layer(logits, deltas, ROIS, np.zeros((1, 3), "float32"), np.array([[64, 64]], "int32"))
    return {key: np.array(value)[0] for key, value in detections.items()}


@pytest.mark.parametrize(("least", "kept"), [(0.0, 3), (0.25, 3), (0.3, 2), (0.5, 2), (0.6, 1), (8.5, 0)])
def test_boxes_with_a_side_below_min_size_after_clipping_are_dropped(least, kept):
    detections = detect(SelectDetections(0.0, 0.5, 3, least))
    assert detections["num_detections"] == kept
    np.testing.assert_allclose(detections["boxes"][:kept], np.minimum(ROIS[0, :kept], 64), atol=1e-5)
    assert (detections["scores"][:kept] > 0.5).all()


def test_a_box_below_min_size_is_dropped_before_nms_and_suppresses_nothing():
    # The first box, 10 x 4, has the higher score, and an IoU of 0.8 with the second one, 10 x 5.
    rois = np.array([[[0, 0, 10, 4], [0, 0, 10, 5]]], "float32")
    inputs = (
        np.array([[3.0, 0], [2, 0]], "float32"), np.zeros((2, 1, 4), "float32"), rois,
        np.zeros((1, 2), "float32"), np.array([[64, 64]], "int32"),
    )  # fmt: skip
    boxes = {least: np.array(SelectDetections(0.05, 0.5, 2, least)(*inputs)["boxes"])[0, 0, 3] for least in (0.0, 4.5)}
    assert boxes == pytest.approx({0.0: 4, 4.5: 5})


def test_the_layer_is_the_same_after_its_config_and_reads_an_older_config_without_min_size():
    values = SelectDetections(0.1, 0.4, 7, 0.01).get_config()
    assert SelectDetections.from_config(values).get_config() == values
    del values["min_size"]
    assert SelectDetections.from_config(values).min_size == 0.0
