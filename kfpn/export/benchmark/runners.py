"""Runs one exported model on demand, in a process of its own that `kfpn benchmark` starts.

    python -m kfpn.export.benchmark.runners RUNTIME PATH IMAGE.npy PRECISION

It reads lines. It answers `run` with the seconds of one run, and `end` with the peak memory in bytes.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kfpn.export.onnx.onnx_runtimes import in_onnxruntime, in_openvino

Runner = Callable[[Path, np.ndarray, str], Callable[[], object]]


def keras_runner(path: Path, image: np.ndarray, _precision: str) -> Callable[[], object]:
    """Returns the function that runs a work directory's network, compiled by XLA."""
    import tensorflow as tf

    from kfpn.runs.load import load_network

    model = load_network(path)
    detect = tf.function(lambda x: model(x, training=False), jit_compile=True)
    images = tf.constant(image[None], tf.float32)
    return lambda: detect(images)["boxes"].numpy()


def bfloat16_runner(path: Path, image: np.ndarray, _precision: str) -> Callable[[], object]:
    """Returns the function that runs a work directory's network with folded norms in bfloat16, by TensorFlow's kernels."""
    import tensorflow as tf

    from kfpn.export.stored_form import policy_of_export, stored_form
    from kfpn.export.trained import TrainedSegmenter, open_either
    from kfpn.kernels.islands import PlainForms
    from kfpn.modeling.detector import inference_model
    from kfpn.modeling.segmenter import segments_model
    from kfpn.runs.precision import dtype_policy

    trained = stored_form(open_either(path), "bfloat16")
    with dtype_policy(policy_of_export(trained.config.model, "bfloat16")):
        if isinstance(trained, TrainedSegmenter):
            model = segments_model(trained.submodels, trained.config.model)
        else:
            submodels = trained.submodels._replace(forms=PlainForms())
            model = inference_model(submodels, trained.config.model, nms="kernel")
    detect = tf.function(lambda x: model(x, training=False))
    images = tf.constant(image[None], tf.float32)
    return lambda: detect(images)["boxes"].numpy()


def saved_model_runner(path: Path, image: np.ndarray, _precision: str) -> Callable[[], object]:
    """Returns the function that runs a SavedModel's signature `image_tensor`, by TensorFlow in Python."""
    import tensorflow as tf

    model = tf.saved_model.load(str(path))
    detect = model.signatures["image_tensor"]
    name = next(iter(detect.structured_input_signature[1]))
    images = tf.constant(image[None].astype(np.uint8))
    boxes = next(output for output in detect.structured_outputs if output.endswith("_boxes"))
    return lambda: detect(**{name: images})[boxes].numpy()


def onnxruntime_runner(path: Path, image: np.ndarray, _precision: str) -> Callable[[], object]:
    """Returns the function that runs an ONNX file in ONNX Runtime on the CPU."""
    detect, images = in_onnxruntime(path), image[None].astype(np.float32)
    return lambda: detect(images)


def openvino_runner(path: Path, image: np.ndarray, precision: str) -> Callable[[], object]:
    """Returns the function that runs an ONNX file in OpenVINO on the CPU; what is float32 in it in bfloat16, if that is the precision."""
    images = image[None].astype(np.float32)
    detect = in_openvino(path, images.shape, "bf16" if precision == "bfloat16" else "f32")
    return lambda: detect(images)


RUNNERS: dict[str, Runner] = {
    "Keras (XLA)": keras_runner,
    "Keras (no XLA)": bfloat16_runner,
    "SavedModel": saved_model_runner,
    "ONNX Runtime": onnxruntime_runner,
    "OpenVINO": openvino_runner,
}


def peak_memory() -> int:
    """Returns the most memory this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would begin with the memory of the process that started this one.
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:") * 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


def main() -> None:
    """Answers the lines of stdin, see the module."""
    runtime, path, image, precision = sys.argv[1:5]
    run = RUNNERS[runtime](Path(path), np.load(image), precision)
    for line in sys.stdin:
        if line.strip() == "end":
            print(peak_memory(), flush=True)
            return
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
