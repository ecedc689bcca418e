"""Says in which precision a trained network is used: evaluated, or given pictures."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import keras

from kfpn.config.run import Config, UsedPrecision
from kfpn.evaluation.device_memory import default_device, device_kind
from kfpn.runs.fast_bfloat16 import has_fast_bfloat16
from kfpn.runs.precision import dtype_policy


def used_precision(asked: UsedPrecision, config: Config) -> str:
    """Returns the dtype policy that a trained network is used with.

    Args:
        asked: "auto": the run's own policy if that is mixed_bfloat16 and a processor that is fast in it computes, else float32.
        config: of the run.

    Raises:
        ValueError: for another word.
    """
    if asked not in get_args(UsedPrecision):
        raise ValueError(f"precision must be one of {', '.join(get_args(UsedPrecision))}, got {asked!r}")
    if asked != "auto":
        return asked
    return "mixed_bfloat16" if config.precision == "mixed_bfloat16" and _computes_on_fast_cpu() else "float32"


def policy_of_use(asked: UsedPrecision | None, config: Config) -> AbstractContextManager[None]:
    """Returns the `with` block in which a network is built with the policy of `used_precision`; None: with the current one."""
    return nullcontext() if asked is None else dtype_policy(used_precision(asked, config))


def in_fastest_form(submodels: Any, config: Config) -> tuple[Any, str]:
    """Returns submodels of a detector in the form that computes the current dtype policy fastest, and the form of NMS to go with it.

    Args:
        submodels: of `kfpn.modeling.submodels.build_submodels`.
        config: of the run.
    """
    if not (keras.config.dtype_policy().name == "mixed_bfloat16" and _computes_on_fast_cpu()):
        return submodels, "rounds"
    from kfpn.kernels.live_form import live_form

    return live_form(submodels, config.model, training=False), "kernel"


def _computes_on_fast_cpu() -> bool:
    if keras.backend.backend() != "tensorflow" or not has_fast_bfloat16():
        return False
    return device_kind(default_device()) == "CPU"
