"""An ONNX file in the runtimes that take it, as a function of images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

Detect = Callable[[np.ndarray], dict[str, np.ndarray]]


def in_onnxruntime(path: Path) -> Detect:
    """Loads a file in ONNX Runtime on the CPU.

    Args:
        path: the file.
    Returns:
        function of images (B, H, W, 3) float32 that gives the file's outputs by name.
    Raises:
        ValueError: if it doesn't load.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        raise ValueError(f"{path} must load in onnxruntime, got {error}") from error
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def in_openvino(path: Path, shape: tuple[int, ...] | None = None) -> Detect:
    """Loads a file in OpenVINO on the CPU, in float32 where the file has it.

    Args:
        path: the file.
        shape: (B, H, W, 3) to prepare it for; None: as the file has it.
    Returns:
        see `in_onnxruntime`.
    Raises:
        ValueError: if it doesn't load.
    """
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        if shape is not None:
            model.reshape({model.inputs[0]: list(shape)})
        # Some CPUs would compute in bfloat16 unless told.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise ValueError(f"{path} must load in OpenVINO, got {error}") from error
    names = [output.any_name for output in compiled.outputs]
    # Copied: the next call writes into the same memory.
    return lambda images: {
        name: np.array(value) for name, value in zip(names, compiled([images]).values(), strict=True)
    }
