"""Brings the processes of a multi_worker run on JAX together: those that TF_CONFIG names, or those that JAX finds by itself."""

import contextlib
import time
from collections.abc import Sequence

import jax

from kfpn.training.backends.jax_cluster import JaxCluster
from kfpn.training.backends.open_port import OpenPort
from kfpn.training.distribution.cluster import reason_out_of_reach
from kfpn.training.distribution.tf_config import EXAMPLE, workers_of_tf_config

WAIT_SECONDS = 300.0
"""Time that a worker waits for the others to come."""
SETTINGS = {
    # On CPUs; GPUs and TPUs have their own.
    "jax_cpu_collectives_implementation": "gloo",
    # It would take SIGTERM for itself.
    "jax_enable_preemption_service": False,
    # Else a worker that ends with an error would wait for all others, also for those that wait for it in the middle of a step.
    "jax_enable_recoverability": True,
}
"""Options of JAX with several processes that TF_CONFIG names; 0.7, the oldest version that runs kfpn, has only the first."""


def join_workers() -> JaxCluster:
    """Starts JAX in all workers of a run, and returns them; it waits until all of them are there.

    Worker 0 has JAX's coordination service on its port of TF_CONFIG. Each other worker listens on its own port: JAX would not need
    it, but by it the others see that the worker has come, and that it lives.

    Raises:
        ValueError: if nothing says which processes train together, a worker does not come or can't listen, or JAX has started
            before.
    """
    told = workers_of_tf_config()
    if told is None:
        return _found_by_jax()
    workers, index = told
    if len(workers) == 1:
        return JaxCluster(0, workers)
    port = _opened(workers, index)
    print(f"worker {index} of {len(workers)} ({workers[index]}) waits for the others", flush=True)
    try:
        wait_for(workers, index)
    except ValueError:
        port.close()
        raise
    if index == 0:
        port.close()  # JAX's service takes its place.
    for name, value in SETTINGS.items():
        with contextlib.suppress(AttributeError):
            jax.config.update(name, value)
    _initialize(
        coordinator_address=workers[0],
        coordinator_bind_address=f"{port.any_address}:{_port_of(workers[0])}",
        num_processes=len(workers),
        process_id=index,
        cluster_detection_method="deactivate",
    )
    return JaxCluster(index, workers, port)


def wait_for(workers: Sequence[str], index: int) -> None:
    """Waits until all other workers listen.

    Args:
        workers: addresses host:port.
        index: number of this worker.

    Raises:
        ValueError: naming one that does not come.
    """
    missing, last = [i for i in range(len(workers)) if i != index], time.monotonic() + WAIT_SECONDS
    while True:
        reasons = {i: reason for i in missing if (reason := reason_out_of_reach(workers[i]))}
        missing = list(reasons)
        if not missing:
            return
        if time.monotonic() > last:
            raise ValueError(
                f"worker {missing[0]} ({workers[missing[0]]}) must come within {WAIT_SECONDS:g} seconds, got: {reasons[missing[0]]}; "
                "start the same command on every worker, with its own index in TF_CONFIG"
            )
        time.sleep(0.2)


def _opened(workers: Sequence[str], index: int) -> OpenPort:
    try:
        return OpenPort(_port_of(workers[index]))
    except OSError as error:
        raise ValueError(
            f"worker {index} must listen on {workers[index]}, got: {error.strerror or error}; end the program that does, or name "
            "another port in TF_CONFIG"
        ) from error


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def _found_by_jax() -> JaxCluster:
    if not jax.distributed.is_initialized():
        _initialize()
    names = [f"process {i} of JAX" for i in range(jax.process_count())]
    return JaxCluster(jax.process_index(), names)


def _initialize(**options: object) -> None:
    try:
        jax.distributed.initialize(**options)  # type: ignore[arg-type]
    except RuntimeError as error:  # JAX's errors are among them.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"strategy multi_worker must start before JAX does anything else in the process, got: {first}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"strategy multi_worker must find TF_CONFIG (such as {EXAMPLE}), or a TPU pod, Slurm or Open MPI as "
            f"jax.distributed.initialize() does, got neither: {error}"
        ) from error
