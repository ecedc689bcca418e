"""Gives the images of a whole source to a model, batch after batch, each image once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kfpn.config.run import Config, InputConfig
from kfpn.data.eval_order import eval_order
from kfpn.data.out_of_memory import MEMORY_ERRORS
from kfpn.data.pipeline import eval_batches, named_errors
from kfpn.data.proposal_table import ProposalTable, with_proposals
from kfpn.data.record import Source
from kfpn.evaluation.images_at_once import ImagesAtOnce, choose_images_at_once


@dataclass(frozen=True)
class SourcePass:
    """Says how the images of a source are given to a model, each image once.

    Attributes:
        source: the data set.
        config: of the run; its `input` says how images are resized.
        batch_size: images that are padded together, see `kfpn.data.eval_order.eval_order`. None: `config.batch_size`.
        progress: whether to show a bar.
        proposals: of the source, for a model that takes them as `fast_rcnn_model` does; else None.
        at_once: images that the model is given at once. None: as `choose_images_at_once` says.
        largest: the resize rule of the largest size, where a model is given each image in several sizes. None: that of
            `config`.
    """

    source: Source
    config: Config
    batch_size: int | None = None
    progress: bool = True
    proposals: ProposalTable | None = None
    at_once: ImagesAtOnce | None = None
    largest: InputConfig | None = None

    @property
    def padded_together(self) -> int:
        """Returns how many images are padded together: `batch_size` or, where that is None, the run's."""
        return self.config.batch_size if self.batch_size is None else self.batch_size

    def batches(self, rows: int | None = None, start: int = 0) -> tf.data.Dataset:
        """Returns the batches of `eval_batches`, with `proposals` (B, P, 4) where there are any.

        Args:
            rows, start: as `eval_batches` takes them.
        """
        batches = eval_batches(self.source, self.config, self.padded_together, rows, start, self.largest)
        if self.proposals is None:
            return batches
        count = self.config.model.post_nms_test
        return with_proposals(batches, self.proposals, self.config, count, augmented=False)


def outputs_by_image(
    model: Callable, source_pass: SourcePass, title: str = "detect"
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields what a model gives for every image of a source, in the order of the batches.

    Args:
        model: as `detect_source` takes it; it may have any dict of outputs.
        source_pass: the source and how its images are given to the model.
        title: of the bar.

    Yields:
        The image's id, and its row of each output and of `image_sizes` and `original_sizes`, (2,) each.

    Raises:
        ValueError: as `detect_source`.
    """
    source = source_pass.source
    if source_pass.padded_together < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, got {source_pass.padded_together!r}")
    if not len(source):
        raise ValueError(f"{source.name}: there must be images to detect on, got none")
    call = detect_function(model)
    at_once = source_pass.at_once or choose_images_at_once(source, source_pass.config, source_pass.batch_size)
    done = 0
    with tqdm(total=len(source), desc=title, unit="image", disable=not source_pass.progress, leave=False) as bar:
        while done < len(source):  # Where memory is used up, the rest is cut into smaller batches.
            shape: tuple[int, ...] = ()
            try:
                for batch in named_errors(source_pass.batches(at_once.rows, done)):
                    shape = tuple(batch["images"].shape)
                    for row in _image_rows(call, batch):
                        done += 1
                        yield int(source[int(row["record_index"])].image_id), row
                        bar.update()
            except MEMORY_ERRORS as error:
                largest = eval_order(source.sizes, source_pass.config, source_pass.batch_size).largest
                at_once.halve((shape[1], shape[2]) if shape else largest, error)


def _image_rows(call: Callable, batch: dict[str, tf.Tensor]) -> list[dict[str, np.ndarray]]:
    """Returns the row of each image of a batch: of what a model gives, and of the batch without its images."""
    inputs = {name: batch[name] for name in ("images", "image_sizes", "proposals") if name in batch}
    arrays = {name: np.asarray(value) for name, value in (call(inputs) | batch).items() if name != "images"}
    images = np.flatnonzero(arrays["record_index"] >= 0)
    return [{name: array[row] for name, array in arrays.items()} for row in images]


def detect_function(model: Callable, jit_compile: bool = False) -> Callable:
    """Returns a model as a `tf.function` (itself if it is one), which keeps a graph for each padded image size.

    Args:
        model: any callable.
        jit_compile: compile with XLA, once for each padded image size.
    """
    return model if hasattr(model, "get_concrete_function") else tf.function(model, jit_compile=jit_compile)
