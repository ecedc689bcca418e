"""Chooses the devices of a run that JAX trains: one, as many as can share its batch equally, or all of several processes."""

import contextlib
import os
import warnings
from collections import Counter

import jax

from kfpn.config.run import Config
from kfpn.training.distribution.equal_shares import idle_devices_line, share_of_replica, usable_replicas

DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops=true"
"""What XLA_FLAGS must have, before JAX starts, for equal bits on a GPU."""


def split_cpu_of_jax(count: int | None) -> None:
    """Splits the CPU into devices of JAX, before JAX does anything else in the process.

    Args:
        count: number of devices; None: nothing is done.

    Raises:
        ValueError: if JAX has started with another number of them.
    """
    if count is None:
        return
    with contextlib.suppress(RuntimeError):  # JAX has started.
        jax.config.update("jax_num_cpu_devices", count)
    if (there := len(jax.local_devices(backend="cpu"))) != count:
        raise ValueError(
            f"cpu_devices must be set before JAX does anything else in the process, got {count} where it has {there}: start a new "
            "process, without --xla_force_host_platform_device_count in XLA_FLAGS"
        )


def require_options_of_jax(config: Config) -> None:
    """Checks the options of a run that JAX can't follow.

    Raises:
        ValueError: naming the first of them, and what to do.
    """
    if config.cross_device != "auto":
        raise ValueError(
            f"cross_device must be auto with KERAS_BACKEND=jax, got {config.cross_device!r}: XLA chooses how devices add"
        )
    if config.masks_on_host:
        raise ValueError(
            f"sampling.mask_targets must be grid with KERAS_BACKEND=jax, got {config.sampling.mask_targets!r}: the host makes these "
            "targets in the middle of a step, which is written for TensorFlow alone"
        )
    if config.model.norm == "sync_bn":
        raise ValueError(
            "model.norm must be bn, gn or frozen_bn with KERAS_BACKEND=jax, got 'sync_bn': there bn takes its statistics over the "
            "whole batch on any number of devices"
        )


def require_determinism_of_jax(config: Config) -> None:
    """Checks that XLA adds in a fixed order where the configuration asks for it; on CPUs it always does.

    Raises:
        ValueError: if XLA was not told so before JAX started.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    on_cpu = config.cpu_devices is not None or jax.default_backend() == "cpu"
    if config.deterministic and not on_cpu and DETERMINISTIC_FLAG not in flags.split():
        raise ValueError(
            f"deterministic must go with XLA_FLAGS={DETERMINISTIC_FLAG} on a {jax.default_backend().upper()} with KERAS_BACKEND=jax, got "
            f"XLA_FLAGS={flags!r}: set it before the command"
        )


def choose_devices(config: Config) -> tuple[jax.Device, ...]:
    """Returns the devices that train: with strategy mirrored as many as can share a batch, and it says which are left out.

    Args:
        config: the run's. With `cpu_devices` the CPU must have been split by `split_cpu_of_jax`.

    Returns:
        With strategy multi_worker those of all processes, the chief's first.

    Raises:
        ValueError: if they can't share a batch in so many parts, or processes have different numbers of them.
    """
    if config.strategy == "multi_worker":
        return _devices_of_processes(config)
    devices = jax.local_devices(backend="cpu" if config.cpu_devices else None)
    names = [device_name(device) for device in devices]
    count = 1
    if config.strategy == "mirrored":
        count = usable_replicas(len(devices), config.batch_size, config.accumulate)
        if count < len(devices):
            warnings.warn(idle_devices_line(names, count, config.batch_size, config.accumulate), stacklevel=3)
    elif len(devices) > 1 and devices[0].platform != "cpu":
        warnings.warn(f"{', '.join(names[1:])} visible but unused; --strategy mirrored uses every device", stacklevel=3)
    share_of_replica(count, config.batch_size, config.accumulate)
    return tuple(devices[:count])


def _devices_of_processes(config: Config) -> tuple[jax.Device, ...]:
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    counts = Counter(device.process_index for device in devices)
    for index, count in counts.items():
        if count != counts[0]:
            raise ValueError(
                f"devices must be as many on every worker, got {counts[0]} on worker 0 and {count} on worker {index}: hide some, such as "
                "by CUDA_VISIBLE_DEVICES"
            )
    share_of_replica(len(devices), config.batch_size, config.accumulate)
    return tuple(devices)


def device_name(device: jax.Device) -> str:
    """Returns `CPU:0` or `GPU:1`, by the number of the device in its process."""
    own = jax.local_devices(device.process_index, device.platform)
    return f"{device.platform.upper()}:{own.index(device)}"
