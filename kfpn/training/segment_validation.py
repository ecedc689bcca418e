"""Evaluates the weights of a run that learns to propose segments on its validation data, and draws samples and curves."""

import functools
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from kfpn.config.run import Config
from kfpn.data.eval_order import eval_order
from kfpn.data.image import load_image
from kfpn.data.record import Source
from kfpn.evaluation.images_at_once import ImagesAtOnce
from kfpn.evaluation.segment_recall import (
    DECIDES,
    evaluate_segments,
    rows_near_objects,
    segment_rows,
    segments_by_image,
)
from kfpn.evaluation.segmentations import decoded_part, truth_parts
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.modeling.segment_submodels import SegmentSubmodels
from kfpn.modeling.segmenter import segments_model
from kfpn.plotting.curves import plot_curves
from kfpn.plotting.draw_boxes import side_by_side
from kfpn.runs.workdir import Workdir
from kfpn.training.backends.training_backend import TrainingBackend
from kfpn.training.best_weights import BEST_BY
from kfpn.training.evaluation_cost import EvaluationCost, estimate_cost
from kfpn.training.evaluation_memory import EvaluationMemory
from kfpn.training.progress import warn_on_write_error
from kfpn.training.validation_loss import ValidationLoss
from kfpn.training.validation_run import LOSSES

DRAWN = 10
"""Segments of an image that a sample picture shows, the best ones."""


class SegmentValidationRun:
    """Evaluates the current weights of a run, and draws samples and curves.

    Args:
        config: the run's configuration.
        workdir: the run's; samples and curves go into it.
        submodels: that are trained; make this outside of the backend's scope.
        source: of the validation images.
        backend: of the run: all its devices of this process evaluate, a batch each. None: one device.

    Call:
        step: int. Returns the recall of the segments and, with `config.val_loss`, the losses on the validation data.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        submodels: SegmentSubmodels,
        source: Source,
        backend: TrainingBackend | None = None,
    ):
        self.config, self.workdir, self.source = config, workdir, source
        model = segments_model(submodels, config.model, padded=True)
        devices: tuple[str, ...] = ()
        # It is made once, so that it is traced once.
        self._detect = detect_function(model)
        if backend is not None:
            self._detect, devices = backend.detector(model, config, source)
        self._memory = functools.cache(lambda: EvaluationMemory(workdir.evaluation, config, source, devices))
        self._loss = ValidationLoss(submodels, config, source) if config.val_loss else None

    def __call__(self, step: int) -> dict[str, Any]:
        """Returns the figures of the current weights; `step` changes nothing."""
        with self._memory().under_way() as at_once:
            figures: dict[str, Any] = evaluate_segments(self._detect, self._pass(at_once), self._draw)
        figures[BEST_BY] = DECIDES
        if self._loss is not None:
            figures |= self._loss.measure()
        if self.workdir.metrics.exists():  # An evaluation may come before the first row.
            with warn_on_write_error(self.workdir.curves):
                plot_curves(self.workdir.metrics, self.workdir.curves)
        return figures

    def probe(self, seconds: float) -> EvaluationCost:
        """Estimates what an evaluation costs from the segments of a few images.

        Args:
            seconds: after about this time it stops.
        """
        with self._memory().under_way() as at_once:
            cost = estimate_cost(
                lambda: self._rows_of_images(at_once),
                images=len(self.source),
                batch=at_once.rows,
                canvases=eval_order(self.source.sizes, self.config).distinct,
                limit=seconds,
            )
        if self._loss is None:
            return cost
        return replace(cost, losses=LOSSES * cost.detecting, to_trace=cost.to_trace + LOSSES * cost.tracing)

    def _rows_of_images(self, at_once: ImagesAtOnce) -> Iterator[list[dict[str, Any]]]:
        """Yields what an evaluation computes of each image: its segments, and their run lengths near objects."""
        for index, segments in segments_by_image(self._detect, self._pass(at_once, progress=False)):
            yield rows_near_objects(self.source[index], segments, self.config.model.pasting)

    def _pass(self, at_once: ImagesAtOnce, progress: bool | None = None) -> SourcePass:
        shown = sys.stderr.isatty() if progress is None else progress
        return SourcePass(self.source, self.config, progress=shown, at_once=at_once)

    def _draw(self, index: int, segments: dict[str, Any]) -> None:
        """Draws one of the first images with its objects beside its best segments."""
        if index >= self.config.samples:
            return
        record = self.source[index]
        best, size = np.arange(min(DRAWN, len(segments["scores"]))), (record.height, record.width)
        rows = segment_rows(index, segments, size, self.config.model.pasting, best)
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        shown = {
            "boxes": np.concatenate([boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, :1:-1]], axis=1),
            "labels": np.zeros(len(rows), np.int32),
            "scores": segments["scores"][best],
            "masks": lambda row: decoded_part(rows[row]["segmentation"]),
        }
        truth = {"boxes": record.boxes, "labels": np.zeros_like(record.labels), "masks": truth_parts(record)}
        picture = side_by_side(load_image(record), truth, shown, ["object"], min_score=0.0)
        with warn_on_write_error(self.workdir.samples):
            self.workdir.samples.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(self.workdir.samples / f"{index:03d}.png")
