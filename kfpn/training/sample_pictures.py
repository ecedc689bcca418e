"""Draws some images of a data set with their ground truth beside the detections."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from kfpn.data.image import load_image
from kfpn.data.record import Source
from kfpn.evaluation.segmentations import parts_of, truth_parts
from kfpn.plotting.draw_boxes import side_by_side


def write_samples(folder: Path, source: Source, by_image: Mapping[int, Mapping[str, Any]], count: int) -> None:
    """Writes the first images of a data set as 000.png and so on.

    Args:
        folder: is made where it is missing.
        source: the data set.
        by_image: image id -> its detections, of `kfpn.evaluation.detect.detect_source`, with the labels of the data.
        count: number of images, fewer where there are fewer.

    Raises:
        OSError: if a file can't be written.
    """
    for index in range(min(count, len(source))):
        record = source[index]
        detections = {**by_image[record.image_id], "masks": parts_of(by_image[record.image_id])}
        truth = {"boxes": record.boxes, "labels": record.labels, "masks": truth_parts(record)}
        picture = side_by_side(load_image(record), truth, detections, source.class_names)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{index:03d}.png")
