from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from kfpn.data.out_of_memory import OutOfMemoryError, explained_memory, large_images
from kfpn.training.backends.tensorflow_backend import TensorFlowBackend
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.strategy import make_strategy
from kfpn.training.step_memory import explain_memory, remedy
from tests.training import standin

ERRORS = (MemoryError("no"), tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\ntensor of shape [9,9]"))


def failing(error):
    def step(batch):
        raise error

    return step


@pytest.mark.parametrize("error", ERRORS, ids=["python", "tensorflow"])
def test_a_step_without_memory_says_what_was_large_and_what_helps(error):
    config = standin.config()
    batch = {name: tf.constant(value) for name, value in standin.batch(6, 4).items()}
    batch["gt_labels"] = tf.constant(np.where(np.arange(3) < np.array([[1], [3], [0], [2]]), 0, -1).astype(np.int32))
    with pytest.raises(OutOfMemoryError) as caught:
        explain_memory(failing(error), config, TensorFlowBackend(Cluster(), make_strategy("one_device")).shares)(batch)
    assert str(caught.value) == (
        "memory must be enough for step 7, with 4 images of 8 x 8 pixels at once and 3 boxes in the fullest, got no more of it: "
        "use --accumulate 2 (the same steps in smaller parts), a smaller --batch-size, a smaller --input.short-side and "
        "--input.long-side (another --batch-size or --input.* is another run: give it its own --workdir)"
    )
    assert isinstance(caught.value, MemoryError)
    assert caught.value.__cause__ is error


def test_parts_are_offered_only_where_a_batch_can_be_cut():
    config = standin.config(batch_size=4)
    assert "--accumulate 4" in remedy(replace(config, accumulate=2), 4)
    assert "accumulate" not in remedy(replace(config, accumulate=4), 4)
    assert "batch-size," not in remedy(replace(config, batch_size=1))


def test_other_errors_and_explained_ones_pass_unchanged():
    for error in (ValueError("x"), tf.errors.InternalError(None, None, "y"), OutOfMemoryError("known")):
        with pytest.raises(type(error)) as caught, explained_memory(lambda: ("a", "b")):
            raise error
        assert caught.value is error


def test_detections_name_their_images():
    large, help_with_it = large_images((3, 800, 1344, 3))
    assert large == "3 images of 800 x 1344 pixels at once"
    assert "--batch-size" in help_with_it
    assert "--batch-size" not in large_images((1, 800, 1344, 3))[1]
