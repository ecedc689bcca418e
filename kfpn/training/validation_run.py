"""Evaluates the weights of a run on its validation data, and draws samples and curves."""

import functools
import sys
from dataclasses import replace
from typing import Any

from kfpn.config.run import Config
from kfpn.config.tile_options import tiles_in_force
from kfpn.data.eval_order import eval_order
from kfpn.data.proposal_table import ProposalTable
from kfpn.data.record import Source
from kfpn.data.tile_source import TileSource, tiles_without_images
from kfpn.evaluation.coco_rows import detections_to_coco
from kfpn.evaluation.detect import detections_by_image, evaluate_detections, evaluate_source
from kfpn.evaluation.detection_limit import deciding_figure, full_images_line, images_at_limit
from kfpn.evaluation.images_at_once import ImagesAtOnce
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.evaluation.tile_detections import detect_tile_source
from kfpn.modeling.detector import inference_model
from kfpn.modeling.fast_rcnn import fast_rcnn_model
from kfpn.modeling.submodels import Submodels
from kfpn.plotting.curves import plot_curves
from kfpn.runs.atomic_files import write_json
from kfpn.runs.used_precision import in_fastest_form
from kfpn.runs.workdir import Workdir
from kfpn.training.backends.training_backend import TrainingBackend
from kfpn.training.best_weights import BEST_BY
from kfpn.training.evaluation_cost import EvaluationCost, estimate_cost
from kfpn.training.evaluation_memory import EvaluationMemory
from kfpn.training.progress import say, warn_on_write_error
from kfpn.training.sample_pictures import write_samples
from kfpn.training.validation_loss import ValidationLoss

LOSSES = 1.5
"""The losses on the validation data take about this multiple of the time of the detection, and so does the tracing of their graphs."""


class ValidationRun:
    """Evaluates the current weights of a run, and draws samples and curves.

    Args:
        config: the run's configuration.
        workdir: the run's; samples and curves go into it.
        submodels: of the detector that is trained; make this outside of the backend's scope.
        source: of the validation images.
        proposals: of the same images, for a detector whose RPN is not trained; None: the RPN's.
        backend: of the run: all its devices of this process evaluate, a batch each. None: one device.

    Call:
        step: int. Returns the COCO figures and, with `config.val_loss`, the losses on the validation data.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        submodels: Submodels,
        source: Source,
        proposals: ProposalTable | None = None,
        backend: TrainingBackend | None = None,
    ):
        self.config, self.workdir, self.source, self.proposals = config, workdir, source, proposals
        # A run on tiles is evaluated as it will be used: in tiles, and in whole images.
        tiles = tiles_in_force(None, config.input)
        self._tile_source = TileSource(source, tiles) if tiles else source
        if proposals is None:
            fastest, nms = in_fastest_form(submodels, config)
            model = inference_model(fastest, config.model, padded=True, nms=nms)
        else:
            model = fast_rcnn_model(submodels, config.model)
        # It is made once, so that it is traced once.
        devices: tuple[str, ...] = ()
        if backend is None:
            self._detect = detect_function(model)
        else:
            self._detect, devices = backend.detector(model, config, self._tile_source)
        # It is made at the first evaluation, by the process that evaluates, when the training has its memory.
        self._memory = functools.cache(lambda: EvaluationMemory(workdir.evaluation, config, self._tile_source, devices))
        self._decided_by = functools.cache(lambda: deciding_figure(source, config.model.max_detections))
        self._detections: list[dict[str, Any]] = []
        self._loss = None
        if config.val_loss:
            self._loss = ValidationLoss(submodels, config, tiles_without_images(source, tiles), proposals)

    def __call__(self, step: int) -> dict[str, Any]:
        """Returns the figures of the current weights; `step` changes nothing."""
        with self._memory().under_way() as at_once:
            figures, detections = self._measure(self._pass(at_once))
        self._detections = detections
        if (decides := self._decided_by()) != "AP":
            figures[BEST_BY] = decides
        limit = self.config.model.max_detections
        if cut := images_at_limit(detections, limit):
            say(full_images_line(cut, len(self.source), limit, "--model.max-detections"))
        if self._loss is not None:
            figures |= self._loss.measure()
        self._draw({detection["image_id"]: detection for detection in detections})
        return figures

    def write_detections(self) -> None:
        """Writes the detections that were measured last into detections.json, in COCO's results form."""
        with warn_on_write_error(self.workdir.detections):
            write_json(self.workdir.detections, detections_to_coco(self._detections, self.source.category_ids))

    def _measure(self, source_pass: SourcePass) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        names = self.source.class_names
        if self._tile_source is self.source:
            return evaluate_source(self._detect, source_pass, names)
        detections = detect_tile_source(self._detect, source_pass)
        return evaluate_detections(self.source, names, detections, limit=self.config.model.max_detections)

    def probe(self, seconds: float) -> EvaluationCost:
        """Estimates what an evaluation costs from the detection of a few images.

        Args:
            seconds: after about this time it stops.
        """
        config, source = self.config, self._tile_source
        with self._memory().under_way() as at_once:
            cost = estimate_cost(
                lambda: detections_by_image(self._detect, self._pass(at_once, progress=False)),
                images=len(source),
                batch=at_once.rows,
                canvases=eval_order(source.sizes, config).distinct,
                limit=seconds,
            )
        if self._loss is None:
            return cost
        return replace(cost, losses=LOSSES * cost.detecting, to_trace=cost.to_trace + LOSSES * cost.tracing)

    def _pass(self, at_once: ImagesAtOnce, progress: bool | None = None) -> SourcePass:
        shown = sys.stderr.isatty() if progress is None else progress
        return SourcePass(self._tile_source, self.config, progress=shown, proposals=self.proposals, at_once=at_once)

    def _draw(self, by_image: dict[int, dict[str, Any]]) -> None:
        """Draws some images with ground truth and detections, and the curves."""
        workdir, source = self.workdir, self.source
        with warn_on_write_error(workdir.samples):
            write_samples(workdir.samples, source, by_image, self.config.samples)
        if not workdir.metrics.exists():  # An evaluation may come before the first row.
            return
        with warn_on_write_error(workdir.curves):
            plot_curves(workdir.metrics, workdir.curves)
