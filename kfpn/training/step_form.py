"""Decides what XLA compiles of a training step."""

import warnings
from typing import Any, Literal

from kfpn.config.run import Config
from kfpn.evaluation.device_memory import device_kind
from kfpn.runs.fast_bfloat16 import has_fast_bfloat16, has_matrix_units

StepForm = Literal["whole", "islands", "off"]

WHAT = {"whole": "forward and backward", "islands": "what stands between the convolutions", "off": "nothing"}
"""Form of a step -> what XLA compiles of it, for people."""


def step_form(config: Config, on_gpu: bool, synchronizes: bool = False) -> StepForm:
    """Returns the form of a run's steps.

    XLA compiles no function that calls the host or sums over replicas. Of such a step it compiles the islands on a CPU, and nothing on
    a GPU, where islands were not measured.

    Args:
        config: the run's.
        on_gpu: whether GPUs train.
        synchronizes: whether replicas exchange statistics in the forward pass, as sync_bn does.
    """
    asked = _asked_form(config, on_gpu)
    if asked != "whole":
        return asked
    why = None
    if config.masks_on_host:
        why = (
            f"sampling.mask_targets {config.sampling.mask_targets} makes the masks' targets on the host, which XLA can't call; "
            "--sampling.mask-targets grid makes them in a compiled step, nearly the same"
        )
    elif synchronizes:
        why = "sync_bn sums over replicas in the middle of a step, which XLA can't under mirrored and multi_worker"
    if why is None:
        return "whole"
    form: StepForm = "off" if on_gpu else "islands"
    warnings.warn(f"compile is {form}: {why}", stacklevel=3)
    return form


def describe_form(form: StepForm, config: Config) -> str:
    """Returns a line that says what is compiled, and how it was chosen."""
    chosen = " (compile auto)" if config.compile == "auto" and config.jit_compile else ""
    return f"XLA compiles {WHAT[form]}{chosen}; precision {config.precision}"


def uses_gpu(strategy: Any) -> bool:
    """Tells whether a strategy of TensorFlow trains on GPUs."""
    return any(device_kind(name) == "GPU" for name in strategy.extended.worker_devices)


def _asked_form(config: Config, on_gpu: bool) -> StepForm:
    if not config.jit_compile or config.compile == "off":
        return "off"
    if config.compile in ("whole", "islands"):
        return config.compile
    if on_gpu:
        return "whole"
    # XLA has no products in bfloat16 for CPUs. Where the processor has matrix units, TensorFlow is faster in float32 as well.
    fast = has_matrix_units() or (config.precision == "mixed_bfloat16" and has_fast_bfloat16())
    return "islands" if fast else "whole"
