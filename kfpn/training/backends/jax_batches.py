"""Makes the batches of a run without TensorFlow, some of them ahead, in a thread."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from kfpn.config.run import Config
from kfpn.training.drawn_noise import LEFT_OUT, PREFIX, drawn_noise

Item = TypeVar("Item")


def with_run_noise(
    batch: Mapping[str, np.ndarray], config: Config, noise_shapes: Callable[..., Mapping[str, tuple]]
) -> dict[str, np.ndarray]:
    """Returns a batch with the noise of the samplers, `noise_NAME` (B, ...) float32: that which TensorFlow draws.

    Args:
        batch: of `RunData.numpy_batches`.
        config: the run's.
        noise_shapes: of the run's losses, see `kfpn.training.exact_masks.run_functions`.
    """
    _, height, width, _ = batch["images"].shape
    shapes = noise_shapes(config, height, width, batch["gt_boxes"].shape[1])
    noise = drawn_noise(config.seed, batch["sample_index"], shapes)
    return {**batch, **{f"{PREFIX}{name}": value for name, value in noise.items()}}


def trained_arrays(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what of a batch goes to the device: without the numbers of the samples, which have 64 bits, and JAX has 32."""
    rest = {name: value for name, value in batch.items() if name not in LEFT_OUT}
    return rest | {"record_index": batch["record_index"].astype(np.int32)}


def split_noise(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a batch without its noise, and its noise by the names of the samplers."""
    noise = {name.removeprefix(PREFIX): value for name, value in batch.items() if name.startswith(PREFIX)}
    return {name: value for name, value in batch.items() if not name.startswith(PREFIX)}, noise


def made_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yields the items of an iterator; the next one is made by a thread while this one is used.

    An error of the iterator is raised when its item is asked for.

    Args:
        items: they are made one after the other.
    """
    nothing: Any = object()
    with ThreadPoolExecutor(1, "batches") as pool:
        coming = pool.submit(next, items, nothing)
        while (item := coming.result()) is not nothing:
            coming = pool.submit(next, items, nothing)
            yield item
