"""Collects Python's garbage often while an export makes a lot of it."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def garbage_collected_often() -> Iterator[None]:
    """Collects cyclic garbage often in a `with` block, and once more behind it.

    tf2onnx copies the whole graph, weights included, before each of its optimizers. The old graphs are cycles, so they stay until
    Python looks for cycles. Python does that only when new objects are a quarter of the old ones, and TensorFlow alone has
    hundreds of thousands. Here the objects that are already there are set aside, so that they do not count.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.collect()  # counts the old objects anew
    gc.set_threshold(thresholds[0], thresholds[1], 1)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        gc.collect()
