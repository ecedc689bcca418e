"""Gives the images of a whole source to a model, batch after batch, each image once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from kfpn.config.run import Config, InputConfig
from kfpn.data.eval_order import eval_order
from kfpn.data.numpy_batches import stacked_batches
from kfpn.data.out_of_memory import is_out_of_memory
from kfpn.data.proposal_table import ProposalTable, rows_of_proposals
from kfpn.data.record import Source
from kfpn.data.sample_arrays import EvaluationSamples
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

    def batches(self, rows: int | None = None, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yields the batches of `kfpn.data.pipeline.eval_batches`, with `proposals` (B, P, 4) where there are any.

        They are made by tf.data where TensorFlow is Keras' backend, and else without it.

        Args:
            rows, start: as `eval_batches` takes them.

        Raises:
            ValueError: naming an image that can't be read.
        """
        if keras.backend.backend() == "tensorflow":
            yield from self._tensorflow_batches(rows, start)
            return
        samples = EvaluationSamples(self.source, self.config, self.padded_together, self.largest)
        rows_of = None if self.proposals is None else rows_of_proposals(self.proposals, *self._of_proposals)
        for batch in stacked_batches(samples, samples.planned(rows or self.padded_together, start)):
            yield batch if rows_of is None else {**batch, "proposals": rows_of(batch)}

    def _tensorflow_batches(self, rows: int | None, start: int) -> Iterator[dict[str, Any]]:
        from kfpn.data.pipeline import eval_batches, named_errors, with_proposals

        batches = eval_batches(self.source, self.config, self.padded_together, rows, start, self.largest)
        if self.proposals is not None:
            batches = with_proposals(batches, self.proposals, *self._of_proposals)
        return named_errors(batches)

    @property
    def _of_proposals(self) -> tuple[Config, int, bool]:
        return self.config, self.config.model.post_nms_test, False


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
                for batch in source_pass.batches(at_once.rows, done):
                    shape = tuple(batch["images"].shape)
                    for row in _image_rows(call, batch):
                        done += 1
                        yield int(source[int(row["record_index"])].image_id), row
                        bar.update()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                largest = eval_order(source.sizes, source_pass.config, source_pass.batch_size).largest
                at_once.halve((shape[1], shape[2]) if shape else largest, error)


def _image_rows(call: Callable, batch: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """Returns the row of each image of a batch: of what a model gives, and of the batch without its images."""
    inputs = {name: batch[name] for name in ("images", "image_sizes", "proposals") if name in batch}
    arrays = {name: np.asarray(value) for name, value in (call(inputs) | batch).items() if name != "images"}
    images = np.flatnonzero(arrays["record_index"] >= 0)
    return [{name: array[row] for name, array in arrays.items()} for row in images]


def detect_function(model: Callable, jit_compile: bool = False) -> Callable:
    """Returns a model as a function that keeps a graph for each padded image size (itself if it is one).

    With TensorFlow as Keras' backend it is a `tf.function`. Elsewhere a Keras model is called by its `predict_on_batch`, which JAX
    compiles and PyTorch runs as it is.

    Args:
        model: any callable.
        jit_compile: compile with XLA, once for each padded image size; JAX always does.
    """
    if hasattr(model, "get_concrete_function"):
        return model
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(model, jit_compile=jit_compile)
    return PredictedBatches(model)


class PredictedBatches:
    """Calls a Keras model on batches of any size, without TensorFlow.

    Args:
        model: a Keras model, or any callable.

    Call:
        inputs: dict of arrays. Returns the outputs as NumPy arrays.
    """

    get_concrete_function = None
    """By this attribute `detect_function` sees that nothing is left to compile."""

    def __init__(self, model: Callable):
        self._model = model

    def __call__(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Returns the outputs of a batch."""
        outputs = self._model.predict_on_batch(inputs) if isinstance(self._model, keras.Model) else self._model(inputs)
        return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}
