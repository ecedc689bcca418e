"""Tells what a run trains on: cores, GPUs and their memory, and fast bfloat16; TensorFlow is imported only where a GPU may be."""

import ctypes
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfpn.config.auto_facts import MachineFacts
from kfpn.config.run import Config
from kfpn.runs.fast_bfloat16 import has_fast_bfloat16

if TYPE_CHECKING:
    from kfpn.training.distribution.cluster import Cluster

_BFLOAT16_CAPABILITY = 8
"""NVIDIA's compute capability from which on GPUs multiply bfloat16 (Ampere)."""


def machine_facts(config: Config, cluster: "Cluster | None" = None) -> MachineFacts:
    """Returns what a run trains on. TensorFlow's devices are not started.

    Args:
        config: of the run: `strategy` and `cpu_devices` count.
        cluster: of the run; with several workers each has to call this at the same point, and all get the same facts: the least
            cores and memory that one of them has, and all their GPUs.
    """
    own = replace(_own_gpus(config) or MachineFacts(fast_bfloat16=_computes_bfloat16_fast()), cores=usable_cores())
    if cluster is None or not cluster.several:
        return own
    memory, gpus = min(cluster.gather(own.gpu_memory or 0)), cluster.gather(own.gpus)
    return MachineFacts(
        cores=min(cluster.gather(own.cores)),
        gpus=sum(gpus) if all(gpus) else 0,
        gpu_memory=memory or None,
        fast_bfloat16=all(cluster.gather(int(own.fast_bfloat16))),
    )


def _own_gpus(config: Config) -> MachineFacts | None:
    if config.cpu_devices or not _may_have_gpu():
        return None
    import keras

    if keras.backend.backend() == "jax":
        return _gpus_of_jax(config)
    import tensorflow as tf

    from kfpn.evaluation.device_memory import gpu_memory_limit

    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return None
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    memory = [gpu_memory_limit(index) for index in range(len(gpus))]
    known = [size for size in memory if size is not None]
    return MachineFacts(
        gpus=1 if config.strategy == "one_device" else len(gpus),
        gpu_memory=min(known, default=None),
        fast_bfloat16=all(detail.get("compute_capability", (0,))[0] >= _BFLOAT16_CAPABILITY for detail in details),
    )


def _gpus_of_jax(config: Config) -> MachineFacts | None:
    import jax

    gpus = [device for device in jax.local_devices() if device.platform == "gpu"]
    if not gpus:
        return None
    limits = [(gpu.memory_stats() or {}).get("bytes_limit") for gpu in gpus]
    capabilities = [re.fullmatch(r"[0-9.]+", str(getattr(gpu, "compute_capability", "0"))) for gpu in gpus]
    return MachineFacts(
        gpus=1 if config.strategy == "one_device" else len(gpus),
        gpu_memory=min((limit for limit in limits if limit), default=None),
        # What is no number is of another maker than NVIDIA, and not known here.
        fast_bfloat16=all(number and float(number[0]) >= _BFLOAT16_CAPABILITY for number in capabilities),
    )


def _computes_bfloat16_fast() -> bool:
    import keras

    # JAX computes on a CPU by XLA, which has no products in bfloat16 there.
    return keras.backend.backend() == "tensorflow" and has_fast_bfloat16()


def _may_have_gpu() -> bool:
    if "tensorflow" in sys.modules:
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns how many CPU cores this process may use: those it is allowed on, or the container's share if that is less.

    Args:
        cgroup: where Linux shows a container its own limits (cgroups(7)): version 2 in `cpu.max`, version 1 in `cpu/`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for read in (_quota_2, _quota_1):
        try:
            quota, period = read(cgroup)
        except (OSError, ValueError):  # the file is missing, or says `max`: no limit
            continue
        if quota > 0 and period > 0:
            cores = min(cores, max(1, round(quota / period)))
    return cores


def _quota_2(cgroup: Path) -> tuple[int, int]:
    quota, period = (cgroup / "cpu.max").read_text().split()
    return int(quota), int(period)


def _quota_1(cgroup: Path) -> tuple[int, int]:
    folder = cgroup / "cpu"
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())
