"""Reads TF_CONFIG, the variable that says which processes train together, for TensorFlow and for JAX."""

import json
import os
import re
from typing import Any

EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
"""A value of TF_CONFIG, for errors."""


def workers_of_tf_config() -> tuple[list[str], int] | None:
    """Returns the addresses host:port of all workers, in their order, and the number of this one; None without TF_CONFIG.

    Raises:
        ValueError: if TF_CONFIG does not describe a cluster, or contradicts itself.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG must be JSON such as {EXAMPLE}, got {text[:200]!r}: {error}") from error
    cluster = value.get("cluster") if isinstance(value, dict) else None
    task = value.get("task") if isinstance(value, dict) else None
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise ValueError(f"TF_CONFIG must have objects cluster and task, such as {EXAMPLE}, got {text[:200]!r}")
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
