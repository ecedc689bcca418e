"""Loads ONNX files in the runtimes that take them, as functions of images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

Detect = Callable[[np.ndarray], dict[str, np.ndarray]]


def in_onnxruntime(path: Path) -> Detect:
    """Loads a file in ONNX Runtime on the CPU.

    Args:
        path: the file.

    Returns:
        A function of images (B, H, W, 3) float32 that returns the file's outputs by name.

    Raises:
        ValueError: if it does not load.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own kinds of errors, which share no other class
        raise ValueError(f"{path} must load in onnxruntime, got {error}") from error
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def in_openvino(path: Path, shape: tuple[int, ...] | None = None, precision: str = "f32") -> Detect:
    """Loads a file in OpenVINO on the CPU.

    Args:
        path: the file.
        shape: (B, H, W, 3) to prepare the file for; None: the shape that the file has.
        precision: OpenVINO's name of what is computed in where the file has float32: "f32" or "bf16".

    Returns:
        A function, see `in_onnxruntime`.

    Raises:
        ValueError: if it does not load.
    """
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        if shape is not None:
            model.reshape({model.inputs[0]: list(shape)})
        # Without the second one, some CPUs would compute in bfloat16.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise ValueError(f"{path} must load in OpenVINO, got {error}") from error
    names = [output.any_name for output in compiled.outputs]
    # The outputs are copied, because the next call writes into the same memory.
    return lambda images: {
        name: np.array(value) for name, value in zip(names, compiled([images]).values(), strict=True)
    }
