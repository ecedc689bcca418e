"""Makes the strategy that shares the training between devices, and tells how many images each of them gets."""

import warnings
from collections.abc import Sequence

import tensorflow as tf

from kfpn.training.distribution.cluster_resolver import resolve_cluster
from kfpn.training.distribution.equal_shares import describe_shares, share_of_replica

CROSS_DEVICE: dict[str, type[tf.distribute.CrossDeviceOps]] = {
    "nccl": tf.distribute.NcclAllReduce,
    "hierarchical": tf.distribute.HierarchicalCopyAllReduce,
    "reduction_to_one": tf.distribute.ReductionToOneDevice,
}
"""Value of `cross_device` -> how the gradients of mirrored replicas are summed."""


def make_strategy(
    name: str,
    devices: Sequence[str] | None = None,
    cross_device_ops: tf.distribute.CrossDeviceOps | None = None,
    cross_device: str = "auto",
) -> tf.distribute.Strategy:
    """Makes the `tf.distribute` strategy of a run.

    Args:
        name: `one_device` (the first GPU, or the CPU), `mirrored` (every visible GPU of this machine, or the CPU) or
            `multi_worker` (all devices of every worker; it has to be made before any TensorFlow op, and waits for the
            other workers).
        devices: names such as `GPU:1` to use instead; one name for `one_device`, None for `multi_worker`.
        cross_device_ops: how the gradients of mirrored replicas are summed; None: as `cross_device` says.
        cross_device: `auto` (TensorFlow's choice: NCCL where there are GPUs), `nccl`, `hierarchical` or
            `reduction_to_one`; the last two only for `mirrored`.

    Returns:
        The strategy; models and optimizers have to be built in its `scope()`.

    Raises:
        ValueError: if the name is another one, a device does not exist, `one_device` gets several devices, `cross_device`
            does not fit, or nothing describes the workers.
    """
    if name not in ("one_device", "mirrored", "multi_worker"):
        raise ValueError(f"strategy must be one of one_device, mirrored, multi_worker, got {name!r}")
    _check_cross_device(name, cross_device)
    if name == "multi_worker":
        return _multi_worker(cross_device)
    gpus = [_short_name(device.name) for device in tf.config.list_logical_devices("GPU")]
    present = gpus + [_short_name(device.name) for device in tf.config.list_logical_devices("CPU")]
    if devices is None:
        devices = training_devices()[: 1 if name == "one_device" else None]
    if not devices or (name == "one_device" and len(devices) > 1):
        raise ValueError(
            f"devices must be {'one name' if name == 'one_device' else 'one name or more'}, got {devices!r}"
        )
    missing = [device for device in devices if _short_name(device) not in present]
    if missing:
        raise ValueError(f"devices must be among {', '.join(present)}, got {missing!r}")
    unused = [gpu for gpu in gpus if gpu not in map(_short_name, devices)]
    if unused and name == "one_device":
        warnings.warn(f"{', '.join(unused)} visible but unused; --strategy mirrored uses every GPU", stacklevel=2)
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if cross_device_ops is None and cross_device != "auto":
        cross_device_ops = CROSS_DEVICE[cross_device]()
    if cross_device_ops is None and len(devices) == 1:
        cross_device_ops = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(list(devices), cross_device_ops=cross_device_ops)


def training_devices() -> list[str]:
    """Returns the names of the devices that can train: every visible GPU, or the CPU."""
    return [_short_name(device.name) for device in tf.config.list_logical_devices("GPU")] or ["CPU:0"]


def _check_cross_device(name: str, cross_device: str) -> None:
    allowed = {"one_device": ("auto",), "mirrored": ("auto", *CROSS_DEVICE), "multi_worker": ("auto", "nccl")}[name]
    if cross_device not in allowed:
        raise ValueError(f"cross_device must be {' or '.join(allowed)} with strategy {name}, got {cross_device!r}")
    # This lists physical devices, because listing logical ones would start TensorFlow before it knows the workers.
    if cross_device == "nccl" and not tf.config.list_physical_devices("GPU"):
        raise ValueError("cross_device must not be nccl without a GPU: NCCL sums on GPUs alone; use auto")


def _multi_worker(cross_device: str) -> tf.distribute.Strategy:
    """Makes the strategy of several processes, as soon as all of them are there."""
    resolver = resolve_cluster()
    workers = resolver.cluster_spec().job_tasks("worker")
    print(f"worker {resolver.task_id} of {len(workers)} ({workers[resolver.task_id]}) waits for the others", flush=True)
    kinds = tf.distribute.experimental.CommunicationImplementation
    kind = kinds.NCCL if cross_device == "nccl" else kinds.AUTO
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(
            resolver, tf.distribute.experimental.CommunicationOptions(implementation=kind)
        )
    except RuntimeError as error:
        raise ValueError(
            f"strategy multi_worker must be made before TensorFlow does anything else in the process, got: {error}"
        ) from error
    except tf.errors.OpError as error:
        first = (error.message or type(error).__name__).strip().splitlines()[0]
        raise ValueError(
            f"worker {resolver.task_id} must reach the others and listen on {workers[resolver.task_id]}, got: {first}"
        ) from error


def replica_batch_size(strategy: tf.distribute.Strategy, batch_size: int, accumulate: int = 1) -> int:
    """Returns the number of images of a global batch that each replica gets.

    Args:
        strategy: of the run.
        batch_size: images of the global batch.
        accumulate: number of parts that each replica computes its share in.

    Raises:
        ValueError: naming batch sizes that fit, if the replicas can't get equal shares, or a share can't be cut into
            `accumulate` equal parts.
    """
    return share_of_replica(strategy.num_replicas_in_sync, batch_size, accumulate)


def describe_strategy(strategy: tf.distribute.Strategy, batch_size: int, accumulate: int = 1) -> str:
    """Returns the first line of a run: strategy, replicas, devices and batch sizes; arguments as in `replica_batch_size`."""
    devices = ", ".join(_short_name(device) for device in strategy.extended.worker_devices)
    kind, place = "one_device", f"on {devices}"
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        resolver = strategy.cluster_resolver
        workers = resolver.cluster_spec().job_tasks("worker")
        kind = "multi_worker"
        place = f"in {len(workers)} worker(s); this is worker {resolver.task_id} ({workers[resolver.task_id]}) with {devices}"
    elif isinstance(strategy, tf.distribute.MirroredStrategy):
        kind = "mirrored"
    return describe_shares(kind, strategy.num_replicas_in_sync, place, batch_size, accumulate)


def _short_name(device: str) -> str:
    """Returns `GPU:0` for `/job:localhost/replica:0/task:0/device:GPU:0`, `/GPU:0` and `GPU:0`."""
    return ":".join(device.split("/")[-1].split(":")[-2:]).upper()
