"""Tells how much memory a device has left."""

import ctypes
import sys
from typing import Any

import keras

from kfpn.data.memory_limit import available_memory


def default_device() -> str:
    """Returns the device that Keras' backend uses where nobody names one: `GPU:0`, or `CPU:0`."""
    if (backend := keras.backend.backend()) != "tensorflow":
        return "GPU:0" if _memory_of_other(backend) is not None else "CPU:0"
    tf = _tensorflow()
    return "GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"


def device_kind(device: str) -> str:
    """Returns `CPU` or `GPU`, the kind of a logical device: see `device_memory`."""
    return _kind_and_index(device)[0]


def _kind_and_index(device: str) -> tuple[str, int]:
    kind, index = device.upper().split("/")[-1].split(":")[-2:]
    return kind, int(index)


def device_memory(device: str) -> int | None:
    """Returns the bytes that a device has left for what runs next; None where that is not known.

    Args:
        device: a logical device, such as `GPU:0` or `/job:localhost/replica:0/task:0/device:CPU:1`. All CPU devices share
            the memory of the machine.
    """
    kind, index = _kind_and_index(device)
    if kind != "GPU":
        return available_memory()
    if (backend := keras.backend.backend()) != "tensorflow":
        return _memory_of_other(backend)
    total = gpu_memory_limit(index)
    if total is None:
        return None
    tf = _tensorflow()
    try:
        used = tf.config.experimental.get_memory_info(f"GPU:{index}")["current"]
    except (ValueError, RuntimeError):  # another allocator, which does not count
        used = 0
    return max(total - used, 0)


def gpu_memory_limit(index: int) -> int | None:
    """Returns the bytes of a logical GPU: its limit, where one was set, or all that its physical GPU has."""
    limits = []
    tf = _tensorflow()
    for gpu in tf.config.get_visible_devices("GPU"):
        parts = tf.config.get_logical_device_configuration(gpu) or [tf.config.LogicalDeviceConfiguration()]
        limits += [(_kind_and_index(gpu.name)[1], part.memory_limit) for part in parts]
    if index >= len(limits):
        return None
    physical, limit = limits[index]
    return int(limit * 2**20) if limit else _driver_total(physical)


def _driver_total(ordinal: int) -> int | None:
    """Asks NVIDIA's driver for the bytes of a GPU, because TensorFlow offers no public way to learn them.

    The driver counts GPUs as TensorFlow does: both heed CUDA_VISIBLE_DEVICES.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, total = ctypes.c_int(), ctypes.c_size_t()
    calls = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), ordinal),
        lambda: driver.cuDeviceTotalMem_v2(ctypes.byref(total), device),
    )
    return total.value if all(call() == 0 for call in calls) else None


def _memory_of_other(backend: str) -> int | None:
    """Returns the free bytes of the GPU that JAX or PyTorch uses; None where they use none, or don't tell."""
    library: Any = sys.modules.get(backend)
    if backend == "torch" and library is not None and library.cuda.is_available():
        return int(library.cuda.mem_get_info()[0])
    if backend == "jax" and library is not None and library.default_backend() == "gpu":
        held = library.local_devices()[0].memory_stats() or {}
        return int(held["bytes_limit"] - held["bytes_in_use"]) if "bytes_limit" in held else None
    return None


def _tensorflow() -> Any:
    """Returns TensorFlow. It is imported only where it is the backend."""
    import tensorflow as tf

    return tf
