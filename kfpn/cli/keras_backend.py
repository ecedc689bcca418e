"""Says which commands run on which backend of Keras."""

import os
from typing import Any

from kfpn.cli.auto_options import AutoTraining
from kfpn.cli.options import Evaluate, ListPretrained, LookAtData, Predict, ReplayNan
from kfpn.cli.report_command import Report
from kfpn.config.run import Config

ON_JAX = (Config, AutoTraining, Evaluate, Predict, Report, ReplayNan, LookAtData, ListPretrained)
"""What runs on JAX as well. The other commands need TensorFlow."""


def require_backend(command: Any) -> None:
    """Checks that a command runs on the backend that the environment asks for, before an import fails in the middle of the work.

    Args:
        command: as it was parsed.

    Raises:
        ValueError: if it does not.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend == "tensorflow" or (backend == "jax" and isinstance(command, ON_JAX)):
        return
    if isinstance(command, Config | AutoTraining):
        raise ValueError(
            f"KERAS_BACKEND must be tensorflow or jax for kfpn train, got {backend!r}: unset it, or write KERAS_BACKEND=jax before the "
            "command (in Python, kfpn.trainable(detector).fit trains on torch as well)"
        )
    allowed = "tensorflow or jax" if isinstance(command, ON_JAX) else "tensorflow"
    raise ValueError(
        f"KERAS_BACKEND must be {allowed} for this command, got {backend!r}: unset it, or write KERAS_BACKEND=tensorflow "
        "before the command (in Python, models of kfpn.load_detector also run on jax and torch)"
    )
