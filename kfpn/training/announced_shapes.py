"""Says when a step takes long because it is compiled: for each new size of the images, once."""

from collections.abc import Callable
from typing import Any

from kfpn.config.run import Config
from kfpn.training.progress import say


def announce_shapes(step: Callable, config: Config, shape_of: Callable[[Any], tuple[int, ...]]) -> Callable:
    """Returns a step that prints a line when it takes long because of a new canvas.

    Args:
        step: a training step.
        config: the run's.
        shape_of: (batch) -> the shape of the images that the first replica of this process gets of it.
    """
    seen: set[tuple[int, ...]] = set()

    def announced_step(batch: Any) -> dict[str, Any]:
        shape = shape_of(batch)
        if shape not in seen:
            seen.add(shape)
            verb = "compiles" if config.jit_compile and config.compile != "off" else "traces"
            say(f"{verb} the step for images of {shape[1]} x {shape[2]}; this takes a while, once")
        return step(batch)

    return announced_step
