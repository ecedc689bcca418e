"""Reads which processes make up a multi_worker run, from TF_CONFIG or else from Slurm."""

import json
import os
import re
from typing import Any

import tensorflow as tf

_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


def resolve_cluster() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Returns the resolver of a multi_worker run, without running a TensorFlow op.

    TF_CONFIG comes first. Kubernetes manifests set it as well, because TensorFlow's KubernetesClusterResolver does not know
    which of the pods it runs in, and needs a client library and the right to list pods.

    Raises:
        ValueError: if neither TF_CONFIG nor Slurm's variables describe a cluster, or if they contradict themselves.
    """
    if os.environ.get("TF_CONFIG"):
        return _make_resolver(*_from_tf_config(os.environ["TF_CONFIG"]))
    if "SLURM_PROCID" in os.environ and "SLURM_STEP_NODELIST" in os.environ:
        return _make_resolver(*_from_slurm())
    raise ValueError(
        f"strategy multi_worker must find TF_CONFIG (such as {_EXAMPLE}) or run under Slurm's srun, got neither; for the GPUs "
        "of one machine use mirrored"
    )


def _make_resolver(workers: list[str], index: int) -> tf.distribute.cluster_resolver.ClusterResolver:
    cluster = tf.train.ClusterSpec({"worker": workers})
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type="worker", task_id=index, rpc_layer="grpc"
    )


def _from_tf_config(text: str) -> tuple[list[str], int]:
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG must be JSON such as {_EXAMPLE}, got {text[:200]!r}: {error}") from error
    cluster = value.get("cluster") if isinstance(value, dict) else None
    task = value.get("task") if isinstance(value, dict) else None
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise ValueError(f"TF_CONFIG must have objects cluster and task, such as {_EXAMPLE}, got {text[:200]!r}")
    if unknown := sorted(set(cluster) - {"chief", "worker"}):
        raise ValueError(f"TF_CONFIG must name only tasks of type chief and worker, got {', '.join(unknown)}")
    jobs = {job: cluster.get(job, []) for job in ("chief", "worker")}
    for job, hosts in jobs.items():
        if not isinstance(hosts, list) or not all(isinstance(h, str) and re.fullmatch(r".+:\d+", h) for h in hosts):
            raise ValueError(f"TF_CONFIG's {job} must be a list of host:port, got {hosts!r}")
    workers = jobs["chief"] + jobs["worker"]
    if len(set(workers)) != len(workers):
        raise ValueError(f"TF_CONFIG must name each host:port once, got {workers!r}")
    # A separate chief counts as the first worker, so that every process has the same order of all workers.
    kind, index = task.get("type"), task.get("index")
    if kind not in jobs or not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(jobs[kind]):
        raise ValueError(f"TF_CONFIG's task must be one of its cluster's ({len(workers)} in all), got {task!r}")
    return workers, index + (len(jobs["chief"]) if kind == "worker" else 0)


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
