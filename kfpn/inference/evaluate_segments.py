"""Measures the recall of the segments of a work directory's network on a data set."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kfpn.config.run import CheckImages, UsedPrecision
from kfpn.data import formats
from kfpn.data.dataset_checks import check_validation_set, require_any_mask
from kfpn.data.own_split import open_validation
from kfpn.data.record import Source
from kfpn.evaluation.compilation import worth_compiling
from kfpn.evaluation.segment_recall import evaluate_segments
from kfpn.evaluation.source_pass import SourcePass, detect_function
from kfpn.inference.segment_pyramid import SegmentPyramid
from kfpn.runs.load import load_segmenter
from kfpn.runs.workdir import Workdir


def open_segment_pass(
    workdir: str | os.PathLike,
    data: str | Source | None = None,
    split: str = "validation",
    batch_size: int | None = None,
    eval_batch_size: int | None = None,
    check_images: CheckImages | None = None,
) -> SourcePass:
    """Opens the data on which the segments of a run are measured.

    Args:
        workdir, data, split, batch_size, eval_batch_size, check_images: as `kfpn.inference.evaluate.EvaluationRequest` has them.

    Raises:
        ValueError: if the data can't be opened or have no masks.
    """
    config = Workdir(workdir).read_config()
    config = replace(config, check_images=check_images or config.check_images)
    if eval_batch_size is not None or batch_size is not None:
        config = replace(config, eval_batch_size=eval_batch_size)
    if data is None or data == "":
        source = open_validation(config, split)
        if source is None:
            raise ValueError(f"{config.data} has no validation split: say what to evaluate on with --data")
    else:
        source = formats.open_source(data, split, config.check_images, True)
    check_validation_set(source)
    require_any_mask(source, config)
    return SourcePass(source, config, batch_size)


def measure_segments(
    workdir: str | os.PathLike,
    source_pass: SourcePass,
    scales: Sequence[int] | None = None,
    flip: bool = False,
    precision: UsedPrecision = "auto",
) -> dict[str, Any]:
    """Returns the recall of a run's segments, `SEGMENT_RECALLS` of `kfpn.evaluation.segment_recall`.

    With an image pyramid there is its cost as well, `image_pyramid`, see `kfpn.inference.timed_passes.TimedPasses.cost`.

    Args:
        workdir: of `kfpn train --task segments`.
        source_pass: of `open_segment_pass`.
        scales: short sides of an image pyramid in pixels; None: the run's own size only.
        flip: look at the mirror image as well, at each size.
        precision: Keras' dtype policy, see `kfpn.runs.used_precision`.

    Raises:
        ValueError: if the work directory holds no trained weights, an image can't be read, or the scales are no different integers of
            at least 32.
    """
    model = load_segmenter(workdir, padded=True, precision=precision)
    if scales or flip:
        pyramid = SegmentPyramid(model, source_pass.config, scales, flip)
        recall = pyramid.evaluate_source(source_pass.source, source_pass.batch_size, source_pass.progress)
        return {**recall, "image_pyramid": pyramid.cost()}
    compiled = worth_compiling(source_pass.source, source_pass.config, source_pass.batch_size)
    return evaluate_segments(detect_function(model, compiled), source_pass)
