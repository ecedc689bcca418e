"""Makes the pictures of a report: images with ground truth and detections side by side, and the curves of a run."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kfpn.data.image import load_image
from kfpn.data.record import Record
from kfpn.evaluation.image_errors import ImageErrors
from kfpn.evaluation.segmentations import parts_of, truth_parts
from kfpn.plotting.curves import draw_curves
from kfpn.plotting.error_panels import error_panel, in_one_row

JPEG_QUALITY = 80


def picture_of_errors(
    record: Record,
    detections: Sequence[Mapping[str, Any]],
    errors: Sequence[ImageErrors],
    class_names: Sequence[str],
    min_score: float,
) -> str:
    """Returns the data URI of an image with its objects and, beside it, with the detections of one run or more.

    Args:
        record: the image.
        detections: of each run.
        errors: of each run. Missed objects are marked where all runs miss them.
        class_names: the names of the labels.
        min_score: detections below it are not drawn.

    Raises:
        ValueError: if the image can't be read.
    """
    image = load_image(record)
    truth = {"boxes": record.boxes, "labels": record.labels, "masks": truth_parts(record)}
    missed = set.intersection(*({error.row for error in one.errors if error.score is None} for one in errors))
    panels = [error_panel(image, truth, range(len(record.labels)), sorted(missed), class_names)]
    for of_run, wrong in zip(detections, errors, strict=True):
        drawn = {**of_run, "masks": parts_of(of_run)}
        rows = np.flatnonzero(np.asarray(of_run["scores"]) >= min_score).tolist()
        marked = [error.row for error in wrong.errors if error.score is not None]
        panels.append(error_panel(image, drawn, rows, marked, class_names))
    buffer = io.BytesIO()
    Image.fromarray(in_one_row(panels)).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return _data_uri("jpeg", buffer.getvalue())


def picture_of_curves(metrics: Path) -> str | None:
    """Returns the data URI of a run's curves; None where it has none, as after `kfpn import-weights`.

    Raises:
        ValueError: if a name in it can't be drawn.
        OSError: if it can't be read.
    """
    if not metrics.exists() or not metrics.read_bytes().strip():
        return None
    buffer = io.BytesIO()
    draw_curves(metrics).savefig(buffer, dpi=110, format="png")
    return _data_uri("png", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
