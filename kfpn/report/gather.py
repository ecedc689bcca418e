"""Gathers what a report shows: the figures, the detections and the errors of a run on a data set."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfpn.config.checks import SHARE, check, whole
from kfpn.config.run import Config
from kfpn.data.formats import open_source
from kfpn.data.own_split import open_run_sources, open_validation
from kfpn.data.record import Source
from kfpn.evaluation.coco_figures import COCO_LIMITS, evaluate_coco
from kfpn.evaluation.coco_rows import ground_truth
from kfpn.evaluation.error_analysis import ErrorAnalysis, analyse_errors
from kfpn.evaluation.image_errors import ImageErrors, errors_of_image
from kfpn.inference.evaluate import open_evaluation
from kfpn.inference.evaluation_request import EvaluationRequest
from kfpn.report.results_file import read_results, records_of
from kfpn.runs.load import require_trained
from kfpn.runs.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class ReportRequest:
    """Says what is reported on.

    Attributes:
        workdir: of `kfpn train` or `kfpn import-weights`.
        data: as `EvaluationRequest` has it. None: the validation data of the run.
        split: of the data, where their name does not say one.
        detections: a file of detections on these data, in COCO's results form; None: the run's detector makes them.
        min_score: detections below it are in no picture and in no confusion matrix.
        images: pictures of the worst images, at most.
    """

    workdir: str | os.PathLike
    data: str | Source | None = None
    split: str = "validation"
    detections: str | os.PathLike | None = None
    min_score: float = 0.5
    images: int = 20

    def __post_init__(self) -> None:
        check(self, "", "min_score", SHARE)
        check(self, "", "images", whole(0))


@dataclasses.dataclass(frozen=True)
class GatheredRun:
    """Holds what is shown of a run.

    Attributes:
        request: what is reported on.
        workdir: of the run.
        config: of the run.
        source: the data.
        figures: those of `evaluate_coco`, and of a detector that looks at tiles also their cost.
        detections: image id -> its detections, with the labels of the data.
        analyses: of boxes and, where there are any, of masks.
        errors: of each image, in the order of the data.
        faults: name of data -> what their check left out or changed, see `AnnotatedSource.fault_counts`.
    """

    request: ReportRequest
    workdir: Workdir
    config: Config
    source: Source
    figures: dict[str, Any]
    detections: dict[int, dict[str, Any]]
    analyses: tuple[ErrorAnalysis, ...]
    errors: tuple[ImageErrors, ...]
    faults: dict[str, dict[str, tuple[int, str]]]

    @property
    def name(self) -> str:
        """Returns what the report calls the run."""
        path = self.workdir.path
        return str(path if path.name else path.resolve())  # "." says nothing


def gather_run(request: ReportRequest) -> GatheredRun:
    """Detects on all images, or reads detections, and analyses them.

    Raises:
        ValueError: if the work directory holds no trained detector, the data can't be opened or hold no object, or the detections
            are of other data.
        OSError: if the file of detections can't be read.
    """
    require_gathered(request)
    if request.detections is None:
        evaluation = open_evaluation(EvaluationRequest(request.workdir, request.data, split=request.split))
        config, source = evaluation.source_pass.config, evaluation.source
        _require_objects(source)  # before the long work
        figures, detections = evaluation.measure()
    else:
        config = Workdir(request.workdir).read_config()
        source = opened_data(request, config)
        _require_objects(source)
        detections = read_results(Path(request.detections), source)
        figures = evaluate_coco(records_of(source), detections, source.class_names, _limit_of(config, detections))
    return _gathered(request, config, source, figures, detections)


def _gathered(
    request: ReportRequest, config: Config, source: Source, figures: dict[str, Any], detections: list[dict[str, Any]]
) -> GatheredRun:
    with_masks = any("segmentations" in one for one in detections)
    truth = ground_truth(records_of(source), source.class_names, with_masks)
    limit = _limit_of(config, detections)
    analyses = [analyse_errors(truth, detections, "bbox", limit, request.min_score)]
    if with_masks and figures.get("mask_AP") is not None:
        analyses.append(analyse_errors(truth, detections, "segm", limit, request.min_score))
    of_image = {int(one["image_id"]): one for one in detections}
    errors = tuple(
        errors_of_image(record, of_image[int(record.image_id)], request.min_score) for record in records_of(source)
    )
    faults = {source.name: dict(getattr(source, "fault_counts", {}))} | _training_faults(request, config)
    return GatheredRun(
        request, Workdir(request.workdir), config, source, figures, of_image, tuple(analyses), errors, faults
    )


def _limit_of(config: Config, detections: Sequence[Mapping[str, Any]]) -> int:
    """Returns the most detections of an image: what the detector or COCO allows, or what a file has of one image."""
    return max(config.model.max_detections, COCO_LIMITS[-1], *(len(one["scores"]) for one in detections))


def require_gathered(request: ReportRequest) -> None:
    """Checks that a work directory is there, with weights where detections are not given.

    Raises:
        ValueError: as `require_trained`.
    """
    workdir = Workdir(request.workdir)
    require_trained(workdir, workdir.config if request.detections is not None else None, rpn=False)


def opened_data(request: ReportRequest, config: Config) -> Source:
    """Opens the data that are asked for, or the validation data of a run, as `open_evaluation` does.

    Args:
        request: with `data` and `split`.
        config: of the run; `model.mask` says whether masks are read.

    Raises:
        ValueError: if they can't be opened, or the run has no validation data.
    """
    if request.data:
        return open_source(request.data, request.split, config.check_images, config.model.mask)
    try:
        source = open_validation(config, request.split)
    except ValueError as error:
        raise ValueError(f"{error}: these are the run's own data; --data names other ones") from error
    if source is None:
        raise ValueError(f"{config.data} has no validation split: say what to report on with --data")
    return source


def _require_objects(source: Source) -> None:
    if not any((~record.crowd).any() for record in records_of(source)):
        raise ValueError(
            f"data must have objects to find, got none in the {len(source)} images of {source.name}: there is nothing to report on"
        )


def _training_faults(request: ReportRequest, config: Config) -> dict[str, dict[str, tuple[int, str]]]:
    """Returns what the check of the training data left out; nothing for a report on other data, or if they are gone."""
    if request.data:
        return {}
    try:
        source, _ = open_run_sources(config)
    except (ValueError, OSError) as error:
        return {config.data: {f"can't be opened any more: {error}": (1, config.data)}}
    return {source.name: dict(getattr(source, "fault_counts", {}))}
