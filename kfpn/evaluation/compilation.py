"""Decides whether an evaluation is compiled with XLA."""

from collections.abc import Sequence

from kfpn.config.run import Config
from kfpn.data.eval_order import eval_order
from kfpn.data.record import Source
from kfpn.evaluation.device_memory import default_device, device_kind

IMAGES_PER_COMPILATION = 500
"""An evaluation is compiled if each canvas has so many images on average. Each canvas is compiled for itself."""


def worth_compiling(
    source: Source, config: Config, batch_size: int | None = None, devices: Sequence[str] = (), times: int = 1
) -> bool:
    """Tells whether an evaluation should be compiled: `compile` is not off, it runs on GPUs, and it is long enough.

    On a CPU it is not compiled: see docs/speed.md, "Evaluation".

    Args:
        source: the data set.
        config: of the run.
        batch_size: images that are padded together. None: `config.batch_size`.
        devices: of the replicas; empty: the one that TensorFlow uses by itself.
        times: how often the data set is evaluated by one process.
    """
    names = list(devices) or [default_device()]
    if (
        not config.jit_compile
        or config.compile == "off"
        or not len(source)
        or any(device_kind(name) != "GPU" for name in names)
    ):
        return False
    return len(source) * times >= IMAGES_PER_COMPILATION * eval_order(source.sizes, config, batch_size).distinct
