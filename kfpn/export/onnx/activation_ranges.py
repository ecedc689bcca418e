"""Finds the least and greatest values of an ONNX file's activations on real images, in little memory."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

EIGHT_BIT_OPERATIONS = ("Conv", "MatMul", "Relu")
"""Types of the nodes that can compute in eight bits. What goes into them and comes out of them is calibrated."""


def activation_ranges(path: Path, inputs: Iterable[np.ndarray]) -> Any:
    """Runs a file on images, and returns the range of each activation beside a node of `EIGHT_BIT_OPERATIONS`.

    onnxruntime's calibrater adds the nodes that compute the least and greatest values, and gathers what they give. The session
    is our own, see `frugal_session`.

    Args:
        path: a file of `kfpn.export.onnx.write_onnx.write_onnx`.
        inputs: images, (1, H, W, 3) uint8.

    Returns:
        onnxruntime's `TensorsData`: name of a tensor -> `lowest` and `highest`, arrays of one float32.
    """
    from onnxruntime.quantization import MinMaxCalibrater

    with tempfile.TemporaryDirectory(prefix="kfpn-int8-") as folder:
        with_ranges = Path(folder) / "with_ranges.onnx"
        calibrater = MinMaxCalibrater(path, EIGHT_BIT_OPERATIONS, augmented_model_path=str(with_ranges))
        calibrater.augment_graph()
        calibrater.infer_session = frugal_session(with_ranges)
        calibrater.collect_data(_CalibrationInputs(inputs))
        return calibrater.compute_data()


def frugal_session(path: Path) -> Any:
    """Loads a file in ONNX Runtime so that it frees activations as early as it can.

    By default ONNX Runtime runs the nodes that nothing else waits for, as those of the ranges are, behind all others. Every
    activation then stays until the end of the image: 4.7 GB for two images of 800 x 1066 and R50-FPN, instead of .3 GB. Here
    nodes run in the order of the file, where the ranges stand in front of the next node that reads the activation. Plans of
    memory are left out: ONNX Runtime keeps one for each size of image. As in onnxruntime's calibrater nothing is fused, because
    fused activations have no range.

    Args:
        path: the file with the nodes that compute ranges.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class _CalibrationInputs:
    """Hands inputs to onnxruntime's calibrater one by one."""

    def __init__(self, inputs: Iterable[np.ndarray]):
        self._inputs = iter(tqdm(inputs, desc="calibrate", unit="image", leave=False))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next input; None after the last one."""
        images = next(self._inputs, None)
        return None if images is None else {"images": images.astype(np.float32)}
