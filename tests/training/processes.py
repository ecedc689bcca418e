"""Starts and ends the processes of a test, which train together on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2", **more}


def tf_configs(count: int = 2) -> list[str]:
    """Returns the TF_CONFIG of each of `count` workers, on ports that are free now."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    hosts = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    return [json.dumps({"cluster": {"worker": hosts}, "task": task}) for task in tasks]


def start(module: str, *args: object, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.training.{module}", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
    )


def start_workers(*words: tuple[object, ...], module: str = "distribution.worker") -> list[subprocess.Popen]:
    """Starts as many workers of one run as there are lists of arguments."""
    configs = tf_configs(len(words))
    return [start(module, *args, TF_CONFIG=config) for args, config in zip(words, configs, strict=True)]


def finish(*processes: subprocess.Popen, timeout: float = 500) -> list[tuple[int, str, str]]:
    """Waits for the processes and returns (exit code, stdout, stderr) of each. It kills those that do not end in time."""
    try:
        texts_of = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, texts_of, strict=True)]
