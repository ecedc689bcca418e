"""Detects at the end of epochs of `fit`: measures COCO's figures, or draws pictures."""

import abc
import dataclasses
import math
import os
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kfpn.config.checks import is_int
from kfpn.config.tile_options import tiles_in_force
from kfpn.data.opening_warnings import without_messages
from kfpn.data.own_split import part_of
from kfpn.data.record import Source
from kfpn.data.tile_source import TileSource
from kfpn.evaluation.compilation import worth_compiling
from kfpn.evaluation.detect import detect_source, evaluate_detections
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.evaluation.tile_detections import detect_tile_source
from kfpn.training.opened_data import AnySource, OpenedData, open_data
from kfpn.training.sample_pictures import write_samples
from kfpn.training.trainable import TrainableDetector

PREFIX = "val_"
"""What stands before the names of figures in the logs, as before those of `validation_data`."""


class OfDetector(keras.callbacks.Callback):
    """Watches the training of a detector."""

    @property
    def trained(self) -> TrainableDetector:
        """Returns the model that is trained.

        Raises:
            ValueError: if it is no model of `kfpn.trainable`.
        """
        model = self.model
        if not isinstance(model, TrainableDetector):
            raise ValueError(
                f"{type(self).__name__} must watch a model of kfpn.trainable, got {getattr(model, 'name', None) or model!r}"
            )
        return model

    def opened(self, source: AnySource, batch_size: int | None) -> OpenedData:
        """Opens validation data with the labels of the detector, and the rule by which the training data are resized.

        Args:
            source: as `kfpn.dataset` takes it. Where it names the training data, their part to evaluate on is taken.
            batch_size: images that are padded together; None: that of the training data.
        """
        model, config = self.trained, self.trained.data_config
        trains_on_it = config is not None and isinstance(source, str | os.PathLike) and os.fspath(source) == config.data
        if config is not None and not trains_on_it:
            config = dataclasses.replace(config, val_share=None)  # That share was of the training data.
        # What is odd about the training data was said when `kfpn.dataset` opened them.
        with without_messages() if trains_on_it else nullcontext():
            return open_data(source, config or model, batch_size, train=False, detector=model.detector)


class _Detecting(OfDetector, abc.ABC):
    """Detects on a data set at the end of epochs.

    Args:
        source: as `kfpn.dataset` takes it; of a name the validation part.
        batch_size: images that are padded together; None: that of the training data.
        every: epochs between two times.
    """

    def __init__(self, source: AnySource, batch_size: int | None = None, every: int = 1):
        super().__init__()
        for name, value in (("every", every), ("batch_size", 1 if batch_size is None else batch_size)):
            if not is_int(value) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        self.source, self.batch_size, self.every = source, batch_size, every
        self._images: Any = None
        self._pass: Any = None
        self._tiles: Any = None
        self._detect: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the data, so that what is wrong with them comes before the training.

        Raises:
            ValueError: if the data can't be used.
        """
        data = self.opened(self.source, self.batch_size)
        self._images = self.chosen(data.source)
        # What was trained on tiles is measured as it will be used: in tiles, and in whole images.
        self._tiles = tiles_in_force(None, data.config.input)
        source = TileSource(self._images, self._tiles) if self._tiles else self._images
        params = self.params or {}
        # With these values Keras shows its own bar, which does not move while images are evaluated: this pass shows another.
        self._pass = SourcePass(source, data.config, progress=params.get("verbose") in ("auto", 1))
        epochs = params.get("epochs") or 1
        compiled = worth_compiling(source, data.config, times=max(1, epochs // self.every))
        detector = self.trained.network.padded_detector(self.trained.detector)
        self._detect = detect_function(detector, compiled)

    def chosen(self, source: Source) -> Source:
        """Returns the images that are looked at: all."""
        return source

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Detects with the newest weights, after each `every`-th epoch."""
        if (epoch + 1) % self.every == 0:
            detect = detect_tile_source if self._tiles else detect_source
            self.use(detect(self._detect, self._pass), self._images, {} if logs is None else logs)

    @abc.abstractmethod
    def use(self, detections: list[dict[str, Any]], source: Source, logs: dict[str, Any]) -> None:
        """Does something with the detections of a source's images."""


class CocoAP(_Detecting):
    """Measures COCO's figures on a data set at the end of epochs, and puts them into the logs as `val_AP`, `val_AP50` and so on.

    So that `EarlyStopping`, `ModelCheckpoint` and others see them they stand behind it in the list of callbacks. With masks there are
    `val_mask_AP` and so on too; what can't be measured, as the AP of large objects where there is none, is left out.

    Args:
        source: a name as `kfpn.dataset` takes it, of which the validation part is taken; or a source.
        batch_size: int, images that are padded together; None: that of the training data.
        every: int, epochs between two measurements.

    Attributes:
        measures_figures: bool, by which `fit` knows it.
        figures: dict, what was measured last, with `per_class`; see `kfpn.evaluate`.
        detections: list of dict, what it was measured on: image_id, boxes (n, 4) float32 yxyx in pixels of the image, scores, labels.

    Raises:
        ValueError: when training begins, if the data can't be opened, or the detector lacks a class of them.
    """

    measures_figures = True

    def __init__(self, source: AnySource, batch_size: int | None = None, every: int = 1):
        super().__init__(source, batch_size, every)
        self.figures: dict[str, Any] = {}
        self.detections: list[dict[str, Any]] = []

    def use(self, detections: list[dict[str, Any]], source: Source, logs: dict[str, Any]) -> None:
        """Measures, and adds the figures to the logs."""
        limit = self.trained.config.model.max_detections
        self.figures, self.detections = evaluate_detections(source, source.class_names, detections, limit=limit)
        for name, value in self.figures.items():
            if isinstance(value, float) and not math.isnan(value):
                logs[f"{PREFIX}{name}"] = value


class Pictures(_Detecting):
    """Draws some images of a data set at the end of epochs: the ground truth beside the detections, as `FOLDER/000.png` and so on.

    Args:
        source: as `CocoAP` takes it; its first images are drawn.
        folder: where the pictures go; each time replaces those before.
        count: int, number of images.
        every: int, epochs between two times.

    Raises:
        ValueError: when training begins, if the data can't be opened.
    """

    def __init__(self, source: AnySource, folder: str | os.PathLike, count: int = 8, every: int = 1):
        super().__init__(source, None, every)
        if not is_int(count) or count < 1:
            raise ValueError(f"count must be an integer of at least 1, got {count!r}")
        self.folder, self.count = Path(folder), count

    def chosen(self, source: Source) -> Source:
        """Returns the first images."""
        return part_of(source, np.arange(min(self.count, len(source))), "first images")

    def use(self, detections: list[dict[str, Any]], source: Source, logs: dict[str, Any]) -> None:
        """Draws the images; where that can't be written, a warning says so."""
        by_image = {row["image_id"]: row for row in detections}
        try:
            write_samples(self.folder, source, by_image, self.count)
        except OSError as error:
            warnings.warn(f"{self.folder} can't be written ({error}); the training goes on without it", stacklevel=2)
