"""Explains a training step that runs out of memory: the batch's images and boxes, and the options that make it smaller."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kfpn.config.run import Config
from kfpn.data.out_of_memory import explained_memory, images_in_words


def explain_memory(step: Callable, config: Config, shares_of: Callable[[Any], list[Mapping[str, Any]]]) -> Callable:
    """Returns a step that raises one line when memory is used up in it.

    Args:
        step: from `build_train_step`.
        config: the run's.
        shares_of: (batch) -> what each replica of this process gets of it.

    Raises:
        OutOfMemoryError: when the step is called, see `kfpn.data.out_of_memory.explained_memory`.
    """

    def explained_step(batch: Any) -> dict[str, Any]:
        def describe() -> tuple[str, str]:
            fullest = max(shares_of(batch), key=_most_boxes)
            number = int(np.asarray(fullest["sample_index"])[0]) // config.batch_size + 1
            return f"step {number}, with {_batch_in_words(fullest)}", remedy(config, len(fullest["images"]))

        with explained_memory(describe):
            return step(batch)

    return explained_step


def remedy(config: Config, share: int | None = None) -> str:
    """Returns which options make a training step smaller.

    Args:
        config: the run's.
        share: images of a replica at once; None: it is not known.
    """
    share = config.batch_size if share is None else share
    parts = (
        [f"--accumulate {2 * config.accumulate} (the same steps in smaller parts)"] if share > config.accumulate else []
    )
    parts += ["a smaller --batch-size"] if config.batch_size > 1 else []
    parts += ["a smaller --input.short-side and --input.long-side"]
    return f"use {', '.join(parts)}" + " (another --batch-size or --input.* is another run: give it its own --workdir)"


def _most_boxes(batch: Mapping[str, Any]) -> int:
    labels = batch.get("gt_labels")
    return 0 if labels is None else int((np.asarray(labels) >= 0).sum(axis=-1).max())


def _batch_in_words(batch: Mapping[str, Any]) -> str:
    return f"{images_in_words(tuple(batch['images'].shape))} at once and {_most_boxes(batch)} boxes in the fullest"
