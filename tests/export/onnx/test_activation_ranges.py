import subprocess
import sys

import numpy as np
import pytest

from kfpn.export.onnx.activation_ranges import EIGHT_BIT_OPERATIONS, activation_ranges
from kfpn.export.onnx.int8 import _eight_bit_nodes, quantize
from kfpn.export.onnx.verify_onnx import pictures


class Reader:
    """Hands images to onnxruntime's own functions."""

    def __init__(self, inputs):
        self.inputs = iter(inputs)

    def get_next(self):
        images = next(self.inputs, None)
        return None if images is None else {"images": images.astype(np.float32)}


@pytest.fixture(scope="module")
def inputs():
    """Returns images of two sizes, as photographs have."""
    shapes = [(1, 96, 128, 3), (1, 128, 96, 3), (1, 96, 128, 3)]
    return [pictures(shape, seed).astype(np.uint8) for seed, shape in enumerate(shapes)]


def test_the_ranges_are_those_of_the_whole_calibration_of_onnxruntime(onnx_file, inputs, tmp_path):
    from onnxruntime.quantization import create_calibrator

    calibrater = create_calibrator(onnx_file, EIGHT_BIT_OPERATIONS, str(tmp_path / "augmented.onnx"))
    calibrater.collect_data(Reader(inputs))
    expected, actual = calibrater.compute_data(), activation_ranges(onnx_file, inputs)
    assert set(actual) == set(expected)
    assert len(set(actual)) > 50
    for name, tensor in expected.items():
        np.testing.assert_array_equal(actual[name].range_value, tensor.range_value)


def test_the_file_is_the_one_that_onnxruntime_alone_writes(onnx_file, inputs, tmp_path):
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    quantize(onnx_file, tmp_path / "ours.onnx", inputs)
    quantize_static(
        str(onnx_file), str(tmp_path / "theirs.onnx"), Reader(inputs), per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        nodes_to_quantize=_eight_bit_nodes(onnx.load(str(onnx_file)).graph),
        op_types_to_quantize=list(EIGHT_BIT_OPERATIONS),
    )  # fmt: skip
    ours, theirs = (onnx.load(str(tmp_path / name)).graph for name in ("ours.onnx", "theirs.onnx"))
    assert list(ours.node) == list(theirs.node)
    assert [tensor.name for tensor in ours.initializer] == [tensor.name for tensor in theirs.initializer]
    for our, their in zip(ours.initializer, theirs.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(our), onnx.numpy_helper.to_array(their))


CALIBRATE_A_CHAIN = """
import resource, sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from kfpn.export.onnx.activation_ranges import activation_ranges

names = ["images", *(f"relu_{i}" for i in range(40))]
nodes = [helper.make_node("Relu", [one], [next_one], name=next_one) for one, next_one in zip(names, names[1:])]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1024, 1366, 3]) for name in (names[0], names[-1])]
model = helper.make_model(helper.make_graph(nodes, "chain", ends[:1], ends[1:]),
                          opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
path = Path(sys.argv[1])
onnx.save(model, str(path))
small = helper.make_model(helper.make_graph(nodes[:1], "one", *[[helper.make_tensor_value_info(name, TensorProto.FLOAT,
    [1, 2, 2, 3])] for name in names[:2]]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
onnx.save(small, str(path.with_name("one.onnx")))
activation_ranges(path.with_name("one.onnx"), [np.ones((1, 2, 2, 3), np.uint8)])  # loads all libraries
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ranges = activation_ranges(path, [np.full((1, 1024, 1366, 3), 7, np.uint8)])
assert len(set(ranges)) == 41 and ranges["relu_39"].highest == 7
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_the_activations_of_an_image_are_not_kept_until_its_end(onnx_file, tmp_path):
    # 40 activations of 17 MB are 672 MB, which is what onnxruntime's own session takes here.
    command = [sys.executable, "-c", CALIBRATE_A_CHAIN, str(tmp_path / "chain.onnx")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 250
