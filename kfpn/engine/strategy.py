"""Which devices share the work, and what each of them gets."""

import warnings
from collections.abc import Sequence

import tensorflow as tf


def make_strategy(
    name: str, devices: Sequence[str] | None = None, cross_device_ops: tf.distribute.CrossDeviceOps | None = None
) -> tf.distribute.Strategy:
    """Makes the `tf.distribute` strategy of a run.

    Args:
        name: `one_device` (the first GPU, or the CPU) or `mirrored` (every visible GPU of this machine, or the CPU).
        devices: names such as `GPU:1` instead of those; `one_device` takes one.
        cross_device_ops: how mirrored replicas are summed; None: TensorFlow's choice (NCCL where there are GPUs).

    Returns:
        A strategy; build models and optimizers in its `scope()`.

    Raises:
        ValueError: for another name, a device that does not exist, or more than one device for `one_device`.
    """
    if name not in ("one_device", "mirrored"):
        raise ValueError(f"strategy must be one of one_device, mirrored, got {name!r}")
    gpus = [_short(device.name) for device in tf.config.list_logical_devices("GPU")]
    present = gpus + [_short(device.name) for device in tf.config.list_logical_devices("CPU")]
    if devices is None:
        devices = (gpus or ["CPU:0"])[: 1 if name == "one_device" else None]
    if not devices or (name == "one_device" and len(devices) > 1):
        raise ValueError(
            f"devices must be {'one name' if name == 'one_device' else 'one name or more'}, got {devices!r}"
        )
    missing = [device for device in devices if _short(device) not in present]
    if missing:
        raise ValueError(f"devices must be among {', '.join(present)}, got {missing!r}")
    unused = [gpu for gpu in gpus if gpu not in map(_short, devices)]
    if unused:
        warnings.warn(f"{', '.join(unused)} visible but unused; --strategy mirrored uses every GPU", stacklevel=2)
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if cross_device_ops is None and len(devices) == 1:
        cross_device_ops = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(list(devices), cross_device_ops=cross_device_ops)


def replica_batch_size(strategy: tf.distribute.Strategy, batch_size: int) -> int:
    """Returns how many of a global batch's images each replica gets.

    Raises:
        ValueError: when the replicas can't get equal shares.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(f"batch_size must be a multiple of the number of replicas ({replicas}), got {batch_size}")
    return batch_size // replicas


def describe(strategy: tf.distribute.Strategy, batch_size: int) -> str:
    """Returns the line a run opens with: strategy, replicas, devices and batch sizes."""
    kind = "mirrored" if isinstance(strategy, tf.distribute.MirroredStrategy) else "one_device"
    share = replica_batch_size(strategy, batch_size)
    devices = ", ".join(_short(device) for device in strategy.extended.worker_devices)
    return (
        f"strategy {kind}: {strategy.num_replicas_in_sync} replica(s) on {devices}; "
        f"global batch {batch_size}, {share} a replica"
    )


def _short(device: str) -> str:
    """`/job:localhost/replica:0/task:0/device:GPU:0`, `/GPU:0` and `GPU:0` all give `GPU:0`."""
    return ":".join(device.split("/")[-1].split(":")[-2:]).upper()
