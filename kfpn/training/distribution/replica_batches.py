"""Opens the batches of a distributed run: each process loads the images of its own replicas, and no others."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from kfpn.data.plan import BatchShare


def distributed_batches(
    strategy: tf.distribute.Strategy, open_share: Callable[[BatchShare], tf.data.Dataset]
) -> Iterator[Any]:
    """Returns the iterator over what this process's replicas get.

    Replica r of n has the images r x B / n to (r + 1) x B / n of each global batch of B.

    Args:
        strategy: of the run.
        open_share: (share) -> the batches of a process's replicas, one behind the other, see `kfpn.data.pipeline.train_batches`.
    """
    return iter(strategy.distribute_datasets_from_function(lambda context: open_share(share_of(context))))


def share_of(context: tf.distribute.InputContext) -> BatchShare:
    """Returns the share of a global batch that a process loads."""
    return BatchShare(context.input_pipeline_id, context.num_input_pipelines, context.num_replicas_in_sync)
