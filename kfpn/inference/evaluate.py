"""Evaluates the detector of a work directory on a data set: COCO's figures, and the recall of its proposals."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras

from kfpn.config.run import CheckImages, Config, UsedPrecision
from kfpn.config.tile_options import Tiles
from kfpn.data import formats
from kfpn.data.annotation_checks import LOGGER
from kfpn.data.class_names import lacking_classes, listed
from kfpn.data.dataset_checks import check_validation_set
from kfpn.data.own_split import open_validation
from kfpn.data.proposal_table import proposals_of
from kfpn.data.record import Source
from kfpn.data.source_masks import boxes_alone
from kfpn.data.tile_source import tiles_without_images
from kfpn.evaluation.best_thresholds import IOU, ClassThreshold, find_thresholds
from kfpn.evaluation.compilation import worth_compiling
from kfpn.evaluation.detect import evaluate_source, source_labels
from kfpn.evaluation.recall import evaluate_proposals
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.inference.evaluation_request import EvaluationRequest
from kfpn.inference.image_pyramid import ImagePyramid
from kfpn.inference.tiled_pyramid import TiledPyramid, pyramid_asked_for
from kfpn.runs import load
from kfpn.runs.thresholds import weights_digest, write_thresholds
from kfpn.runs.workdir import Workdir


@dataclass(frozen=True)
class Evaluation:
    """Holds a loaded detector and opened data, ready to be measured.

    Attributes:
        request: what is evaluated.
        model: the detector of the work directory.
        source_pass: the data, the run's config, and the proposals of a run on fixed proposals.
        pyramid: of the model, if several sizes, mirror images or tiles are looked at; else None.
        weights: digest of the model's weights, where best thresholds are asked for.
    """

    request: EvaluationRequest
    model: keras.Model
    source_pass: SourcePass
    pyramid: ImagePyramid | None
    weights: str = ""

    @property
    def source(self) -> Source:
        """Returns the data."""
        return self.source_pass.source

    def measure(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Detects on all images.

        Returns:
        The figures of `evaluate_coco`, with the cost of an image pyramid as `image_pyramid`, or in tiles as `tiles`, see
            `ImagePyramid.cost` and `TiledPyramid.cost`; and the detections of `detect_source`, with the labels of the data.

        Raises:
            ValueError: if the model lacks a class of the data, or an image can't be read.
        """
        names = self.model.class_names
        if self.pyramid is None:
            given = self.source_pass
            compiled = worth_compiling(given.source, given.config, given.batch_size)
            return evaluate_source(detect_function(self.model, compiled), given, names)
        figures, detections = self.pyramid.evaluate_source(self.source, names, self.source_pass.batch_size)
        return {**figures, "image_pyramid" if self.tiles is None else "tiles": self.pyramid.cost()}, detections

    @property
    def tiles(self) -> Tiles | None:
        """Returns the tiles that images are looked at in; None: they are looked at as a whole."""
        return self.pyramid.tiles if isinstance(self.pyramid, TiledPyramid) else None

    def keep_best_thresholds(self, detections: Sequence[dict[str, Any]]) -> tuple[ClassThreshold, ...]:
        """Finds the best threshold of each of the model's classes, and writes them into the work directory.

        Args:
            detections: of `measure`.
        """
        rows = find_thresholds(self.source, detections, self.model.class_names)
        measured = {
            "data": self.source.name, "images": len(self.source), "iou": IOU, "scales": self.request.scales,
            "flip": self.request.flip, "weights": self.weights, **({"tiles": asdict(self.tiles)} if self.tiles else {}),
        }  # fmt: skip
        write_thresholds(Workdir(self.request.workdir), [asdict(row) for row in rows], measured)
        return rows

    def measure_proposals(self) -> dict[str, float | None]:
        """Returns the recall of the proposals at the run's own size, of the tiles where there are any, see `evaluate_proposals`."""
        model = load.load_proposals_model(self.request.workdir, self.request.precision)
        one = self.source_pass
        return evaluate_proposals(model, tiles_without_images(one.source, self.tiles), one.config, one.batch_size)


def open_evaluation(request: EvaluationRequest) -> Evaluation:
    """Loads the detector and opens the data; everything that can be checked before the long work is checked here.

    Raises:
        ValueError: if the work directory holds no trained detector, the data can't be opened, or the scales are wrong; for
            a run on fixed proposals also if its proposals do not belong to the data, or the RPN would be needed.
    """
    weights = _digest_for_thresholds(request) if request.best_thresholds else ""
    model = _load_evaluated(request)
    config = _asked_config(request)
    source = _open_data(request, config)
    source_labels(source, model.class_names)  # before the long work
    if config.model.mask and (why := boxes_alone(source)):
        LOGGER.warning("%s", why)
    if unused := lacking_classes(source, model.class_names)[1]:
        LOGGER.warning("%s: classes that the model lacks, without a box, not measured: %s", source.name, listed(unused))
    proposals = proposals_of(config.proposals, source) if config.proposals else None
    source_pass = SourcePass(source, config, request.batch_size, proposals=proposals)
    pyramid = pyramid_asked_for(model, config, request.tiles, request.scales, request.flip)
    return Evaluation(request, model, source_pass, pyramid, weights)


def _digest_for_thresholds(request: EvaluationRequest) -> str:
    """Returns the digest of the weights before they are loaded: a training under way may replace them meanwhile."""
    workdir = Workdir(request.workdir)
    load.require_trained(workdir, rpn=False)
    workdir.check_writable()
    return weights_digest(workdir)


def _asked_config(request: EvaluationRequest) -> Config:
    """Returns the run's config with what the request asks for in its place."""
    config = load.limited(Workdir(request.workdir).read_config(), request.max_detections)
    config = replace(config, check_images=request.check_images or config.check_images)
    if request.eval_batch_size is None and request.batch_size is None:
        return config
    return replace(config, eval_batch_size=request.eval_batch_size)


def _load_evaluated(request: EvaluationRequest) -> keras.Model:
    workdir = Workdir(request.workdir)
    if not (workdir.config.exists() and workdir.read_config().proposals):
        return load.load_trained_detector(request.workdir, True, request.max_detections, request.precision)
    if request.proposals or request.scales is not None or request.flip or request.tiles:
        raise ValueError(
            f"proposals, scales, flip and tiles must be left out for {os.fspath(request.workdir)}, which was trained on fixed "
            "proposals: it has no trained RPN"
        )
    return load.load_fast_rcnn(request.workdir, request.max_detections, request.precision)


def _open_data(request: EvaluationRequest, config: Config) -> Source:
    if request.data is None or request.data == "":
        try:
            source = open_validation(config, request.split)
        except ValueError as error:
            raise ValueError(f"{error}: these are the run's own data; --data names other ones") from error
        if source is None:
            raise ValueError(f"{config.data} has no validation split: say what to evaluate on with --data")
    else:
        source = formats.open_source(request.data, request.split, config.check_images, config.model.mask)
    check_validation_set(source)
    return source


def evaluate(
    workdir: str | os.PathLike,
    data: str | Source | None = None,
    *,
    split: str = "validation",
    batch_size: int | None = None,
    scales: Sequence[int] | None = None,
    flip: bool = False,
    proposals: bool = False,
    check_images: CheckImages | None = None,
    eval_batch_size: int | None = None,
    max_detections: int | None = None,
    best_thresholds: bool = False,
    tiles: Tiles | int | None = None,
    precision: UsedPrecision = "auto",
) -> dict[str, Any]:
    """Returns the figures of a work directory's detector on a data set, as `kfpn evaluate --json` writes them.

    Args:
        workdir: of `kfpn train`, `kfpn.callbacks.WorkDirectory`, `kfpn.save_detector` or `kfpn import-weights`.
        data: what to evaluate on, a name as `kfpn.open_source` takes it, or a source. None: the validation data of the run.
        split: of the data, where their name does not say one.
        batch_size: images that are padded together; where memory decides, no more are taken at once. None: that of the run.
        scales: short sides of an image pyramid in pixels, such as (480, 640, 800); the detections are merged, see
            `ImagePyramid`. None: the run's own size only.
        flip: look at the mirror image as well, at each size.
        proposals: measure the recall of the RPN's proposals as well.
        check_images: "full", "once" or "none", see `Config.check_images`. None: as the run did.
        eval_batch_size: images that the model is given at once, see `EvaluationRequest`. None: that of the run, or by memory.
        max_detections: detections an image at most. None: as the run has it.
        best_thresholds: find each class's best score threshold and keep them in the work directory, as `--best-thresholds` does.
        tiles: look at each image in tiles of so many of its pixels, and as a whole; or a `kfpn.Tiles`. 0: as a whole only. None: as the
            run trained.
        precision: "float32", "mixed_bfloat16", or "auto": the latter where the run was trained in it and the processor is fast in it.

    Returns:
        dict: COCO's twelve figures `AP` to `ARl`, floats in 0..1, or None where there is no ground truth; `per_class`,
        {name: AP}; where the detector may give N detections of an image and N is above COCO's 100, also `AP@N`, `AP50@N`,
        `AP75@N` and `AR@N`; of a detector with masks the same of masks, `mask_AP` to `mask_per_class`; with `scales` or `flip` also `image_pyramid`, see `ImagePyramid.cost`, and in tiles `tiles` instead; with `proposals` also
        `proposals`, see `evaluate_proposals`; with `best_thresholds` also `thresholds`, a list of the fields of `ClassThreshold`, one for each label.

    Raises:
        ValueError: if the work directory holds no trained detector, the data can't be opened or read, a value is out of
            range, or the detector lacks a class of the data.
    """
    request = EvaluationRequest(
        workdir, data, split=split, batch_size=batch_size, scales=scales, flip=flip, proposals=proposals, check_images=check_images,
        eval_batch_size=eval_batch_size, max_detections=max_detections, best_thresholds=best_thresholds, tiles=tiles,
        precision=precision,
    )  # fmt: skip
    evaluation = open_evaluation(request)
    figures, detections = evaluation.measure()
    if best_thresholds:
        figures["thresholds"] = [asdict(row) for row in evaluation.keep_best_thresholds(detections)]
    if proposals:
        figures["proposals"] = evaluation.measure_proposals()
    return figures
