"""Makes the batches that `fit` and `evaluate` of a trainable detector take: by tf.data, or without TensorFlow."""

import importlib.util
import itertools
import os
import threading
from typing import Any, Literal

import keras
import numpy as np

from kfpn.config.checks import is_int
from kfpn.config.run import Config
from kfpn.data.numpy_batches import stacked
from kfpn.data.sample_arrays import EvaluationSamples, PlannedSamples, TrainingSamples
from kfpn.losses.training_losses import noise_shapes
from kfpn.training.drawn_noise import LEFT_OUT, PREFIX, drawn_noise
from kfpn.training.opened_data import AnySource, OpenedData, open_data

Kind = Literal["auto", "tf.data", "python"]
MOST_WORKERS = 8


def dataset(
    source: AnySource,
    settings: Any,
    batch_size: int | None = None,
    train: bool = True,
    *,
    kind: Kind = "auto",
    first_epoch: int = 0,
    val_share: float | None = None,
) -> Any:
    """Returns the batches of a data set for `kfpn.trainable`: to train on, augmented and in a new order each epoch, or to evaluate on.

    An epoch has as many batches as the images fill. Order, augmentation and the samplers' noise depend on the seed, the epoch and the
    image alone, and are those of `kfpn train`. To evaluate, each image is there once, without augmentation, and black images fill up the last batches; they count
    nothing.

    Args:
        source: a name as `kfpn train --data` takes it, such as `my_folder` or `coco:FILE.json,IMAGES`, of which the training part is
            taken, or its validation part; or a source, see `kfpn.open_source`.
        settings: the detector, with an `input_config`, or the model of `kfpn.trainable`; or a `kfpn.Config`, whose `model`, `input`,
            `sampling` and `seed` count.
        batch_size: int, B, images of a batch; None: that of the configuration, 1 for a detector.
        train: bool. False: the part to evaluate on.
        kind: "tf.data" gives a `tf.data.Dataset`, "python" a `keras.utils.PyDataset`, which needs no TensorFlow; "auto" the former
            where TensorFlow is Keras' backend, else the latter.
        first_epoch: int, number of the first epoch: that of `fit`'s `initial_epoch` for a run that goes on.
        val_share: float in 0..1, the share of the images that is kept to evaluate on, of data without a validation split. Give both
            parts the same. None: that of the configuration; for a detector a tenth where `kfpn train` keeps one, see docs/data.md.

    Returns:
        The batches, dicts as `kfpn.trainable` takes them; with the attributes `class_names` and `config`, from which the callbacks know
            how images are resized.

    Raises:
        ValueError: if the data can't be opened, the detector lacks a class of them, or an argument is wrong.
        ModuleNotFoundError: where tf.data is asked for and TensorFlow is not installed.
    """
    if kind not in ("auto", "tf.data", "python"):
        raise ValueError(f"kind must be 'auto', 'tf.data' or 'python', got {kind!r}")
    for name, value, least in (
        ("batch_size", 1 if batch_size is None else batch_size, 1),
        ("first_epoch", first_epoch, 0),
    ):
        if not is_int(value) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    by_tensorflow = kind == "tf.data" or (kind == "auto" and keras.backend.backend() == "tensorflow")
    if by_tensorflow and importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            "kind must be 'python' where TensorFlow is not installed, got 'tf.data': leave kind out, or pip install tensorflow",
            name="tensorflow",
        )
    opened = open_data(source, settings, batch_size, train, val_share=val_share)
    if not by_tensorflow:
        return DetectionBatches(opened, train, first_epoch)
    from kfpn.training.tensorflow_dataset import tensorflow_batches

    return tensorflow_batches(opened, train, first_epoch)


class DetectionBatches(keras.utils.PyDataset):
    """Makes batches without TensorFlow, see `kfpn.dataset`.

    Args:
        opened: the data.
        train: whether they are to train on.
        first_epoch: number of the first epoch.
        options: `workers` and `max_queue_size` of `keras.utils.PyDataset`.

    Attributes:
        class_names: the names of the labels.
        config: the configuration by which the batches are made.
        epoch: int, number of the epoch whose batches are given.
    """

    def __init__(self, opened: OpenedData, train: bool, first_epoch: int = 0, **options: Any):
        super().__init__(**{"workers": min(MOST_WORKERS, os.cpu_count() or 1), **options})
        self.source, self.config = opened
        self.class_names = tuple(self.source.class_names)
        self.epoch = first_epoch
        self._samples: TrainingSamples | EvaluationSamples
        if train:
            self._samples = TrainingSamples(self.source, self.config)
        else:
            self._samples = EvaluationSamples(self.source, self.config, self.config.batch_size, truth=True)
        self._lock = threading.Lock()  # Several threads ask for batches.
        self._planned: list[PlannedSamples] = []
        self._begun, self._first_epoch, self._in_fit = False, first_epoch, False

    @property
    def use_multiprocessing(self) -> bool:
        """Whether processes make the batches: never, threads do.

        Raises:
            ValueError: where it is set to True. A process that is forked while a thread holds a lock would wait for ever.
        """
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if value:
            raise ValueError(
                f"use_multiprocessing must be False for batches of kfpn.dataset, got {value!r}: threads make them, set workers instead"
            )

    def __len__(self) -> int:
        """Returns the number of batches of an epoch, which Keras finds as `num_batches` too."""
        return len(self._plan())

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns a batch of the epoch.

        Raises:
            ValueError: naming an image that can't be read.
        """
        planned = self._plan()[index]
        # In `fit` Keras says when an epoch begins. On TensorFlow it looks at some batches before, to know their shapes.
        self._begun = self._begun or not self._in_fit
        return with_drawn_noise(stacked(self._samples, planned), self.config)

    def on_epoch_begin(self) -> None:
        """Begins an epoch of `fit`. The first time it is `first_epoch`, whatever was looked at before."""
        with self._lock:
            if not self._in_fit:
                self.epoch, self._planned = self._first_epoch, []
            self._begun = self._in_fit = True

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch, if this one has begun: Keras calls this before the first one as well."""
        with self._lock:
            if self._begun and isinstance(self._samples, TrainingSamples):
                self.epoch += 1
                self._planned = []
            self._begun = False

    def _plan(self) -> list[PlannedSamples]:
        with self._lock:
            if not self._planned:
                samples = self._samples
                if isinstance(samples, TrainingSamples):
                    count = samples.steps_per_epoch
                    self._planned = list(itertools.islice(samples.planned(self.epoch * count), count))
                else:
                    self._planned = list(samples.planned(self.config.batch_size))
            return self._planned


def with_drawn_noise(batch: dict[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    """Returns a batch as the losses take it: with the samplers' noise, without what they don't need.

    Args:
        batch: of `kfpn.data.numpy_batches.stacked`.
        config: of the batch.
    """
    _, height, width, _ = batch["images"].shape
    shapes = noise_shapes(config, height, width, batch["gt_boxes"].shape[1])
    noise = drawn_noise(config.seed, batch["sample_index"], shapes)
    rest = {name: value for name, value in batch.items() if name not in LEFT_OUT}
    # JAX has no integers of 64 bits unless it is told to.
    rest["record_index"] = batch["record_index"].astype(np.int32)
    return rest | {f"{PREFIX}{name}": value for name, value in noise.items()}
