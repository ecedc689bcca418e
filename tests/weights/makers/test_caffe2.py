import numpy as np

from kfpn.weights.identify import read_trained_weights
from tests.weights.foreign import caffe2_backbone, detectron2_backbone, trunk, write


def tensors(path):
    return {key: tensor.value for key, tensor in read_trained_weights(path).tensors.items()}


def test_a_caffe2_file_has_the_tensors_of_detectron2s_file_with_mean_zero_and_variance_one(tmp_path):
    units = trunk("resnet50")
    for unit in units.values():
        unit["m"], unit["v"] = np.zeros_like(unit["m"]), np.ones_like(unit["v"])
    named = write(tmp_path / "named.pkl", {"model": detectron2_backbone(units), "__author__": "Caffe2"})
    expected = tensors(named)
    assert (
        read_trained_weights(named).model
        == read_trained_weights(write(tmp_path / "R-50.pkl", caffe2_backbone(units))).model
    )
    for content in (caffe2_backbone(units), {"blobs": caffe2_backbone(units) | {"conv1_w_momentum": np.ones(3)}}):
        arrays = tensors(write(tmp_path / "R-50.pkl", content))
        assert arrays.keys() == expected.keys()
        for key, value in arrays.items():
            np.testing.assert_array_equal(value, expected[key], key)
