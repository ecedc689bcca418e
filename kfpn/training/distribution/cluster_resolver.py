"""Reads which processes make up a multi_worker run, from TF_CONFIG or else from Slurm."""

import os
import re

import tensorflow as tf

from kfpn.training.distribution.tf_config import EXAMPLE, workers_of_tf_config


def resolve_cluster() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Returns the resolver of a multi_worker run, without running a TensorFlow op.

    TF_CONFIG comes first. Kubernetes manifests set it as well, because TensorFlow's KubernetesClusterResolver does not know
    which of the pods it runs in, and needs a client library and the right to list pods.

    Raises:
        ValueError: if neither TF_CONFIG nor Slurm's variables describe a cluster, or if they contradict themselves.
    """
    if (told := workers_of_tf_config()) is not None:
        return _make_resolver(*told)
    if "SLURM_PROCID" in os.environ and "SLURM_STEP_NODELIST" in os.environ:
        return _make_resolver(*_from_slurm())
    raise ValueError(
        f"strategy multi_worker must find TF_CONFIG (such as {EXAMPLE}) or run under Slurm's srun, got neither; for the GPUs "
        "of one machine use mirrored"
    )


def _make_resolver(workers: list[str], index: int) -> tf.distribute.cluster_resolver.ClusterResolver:
    cluster = tf.train.ClusterSpec({"worker": workers})
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type="worker", task_id=index, rpc_layer="grpc"
    )


def _from_slurm() -> tuple[list[str], int]:
    rank = int(os.environ["SLURM_PROCID"])
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    try:
        # One GPU a task is only pretended: the resolver can't count zero, and Slurm itself assigns GPUs (--gpus-per-task).
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            # The port depends on the job, because two jobs on one node must not use the same port.
            port_base=12000 + job % 10000,
            gpus_per_node=4096,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        workers = resolver.cluster_spec().job_tasks("worker")
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"Slurm's variables must describe the cluster, got: {error}; start with srun") from error
    # The resolver sorts node10 before node2, but Slurm's ranks count node2 first.
    workers = sorted(workers, key=_natural_order)
    here = os.environ.get("SLURMD_NODENAME")
    if here and workers[rank].rpartition(":")[0] != here:
        raise ValueError(
            f"Slurm's task {rank} must run on {workers[rank].rpartition(':')[0]}, got {here}; use srun --distribution=block"
        )
    return workers, rank


def _natural_order(address: str) -> list[tuple[int, str]]:
    """Returns a key that sorts node2 before node10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", address)]
