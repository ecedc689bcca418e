"""Chooses the devices of a run: as many as can share its batch equally, so that the answer does not depend on how many there are."""

import warnings
from dataclasses import replace

import tensorflow as tf

from kfpn.config.run import Config
from kfpn.training.distribution.equal_shares import idle_devices_line, usable_replicas
from kfpn.training.distribution.strategy import make_strategy, training_devices


def split_cpu(count: int | None) -> None:
    """Splits the CPU into logical devices, before TensorFlow does anything else in the process.

    Args:
        count: number of devices; None: nothing is done.

    Raises:
        ValueError: if TensorFlow has started with another number of them.
    """
    if count is None:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) != count:
            raise ValueError(
                f"cpu_devices must be set before TensorFlow does anything else in the process, got {count} after that: start a "
                "new process"
            ) from error


def make_run_strategy(config: Config) -> tf.distribute.Strategy:
    """Makes the strategy of a run; `mirrored` takes as many devices as can share a batch equally, and says which are left out.

    Args:
        config: the run's. With `cpu_devices` the CPU must have been split by `split_cpu`.

    Raises:
        ValueError: as `make_strategy` does.
    """
    if config.strategy != "mirrored":
        return make_strategy(config.strategy, cross_device=config.cross_device)
    devices, cross_device = training_devices(), config.cross_device
    if config.cpu_devices:
        devices = [f"CPU:{index}" for index in range(config.cpu_devices)]
        if cross_device == "nccl":
            raise ValueError("cross_device must not be nccl with cpu_devices: NCCL sums on GPUs alone; use auto")
        # TensorFlow's own choice for several CPUs needs a thread for each of them.
        cross_device = "reduction_to_one" if cross_device == "auto" else cross_device
    count = usable_replicas(len(devices), config.batch_size, config.accumulate)
    if count < len(devices):
        warnings.warn(idle_devices_line(devices, count, config.batch_size, config.accumulate), stacklevel=2)
    return make_strategy("mirrored", devices[:count], cross_device=cross_device)


def with_norms_of_batch(config: Config, strategy: tf.distribute.Strategy) -> Config:
    """Returns the configuration that is trained: on several replicas the norm `bn` is computed as `sync_bn`.

    The work directory keeps `bn`: the variables are the same, and with one replica so are the statistics, so a run goes on with
    any number of replicas.
    """
    count = strategy.num_replicas_in_sync
    if config.model.norm != "bn" or count == 1:
        return config
    warnings.warn(
        f"model.norm bn is computed as sync_bn on {count} replicas: its statistics are those of the whole batch, as on one "
        "device. The work directory keeps bn",
        stacklevel=2,
    )
    return replace(config, model=replace(config.model, norm="sync_bn"))
