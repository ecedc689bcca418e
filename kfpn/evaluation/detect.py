"""Runs a detector over images and whole sources, and gives its boxes in pixels of the original images."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kfpn.config.run import InputConfig
from kfpn.data.augment import prepare_image
from kfpn.data.class_names import lacking_classes, spelling_hint
from kfpn.data.jpeg_fraction import AnyImage, as_decoded
from kfpn.data.out_of_memory import explained_memory, large_images
from kfpn.data.record import Source
from kfpn.evaluation.coco_figures import COCO_LIMITS, evaluate_coco
from kfpn.evaluation.detection_limit import FOUND_IN_ALL
from kfpn.evaluation.detection_rows import take_rows
from kfpn.evaluation.segmentations import segmented
from kfpn.evaluation.source_pass import SourcePass, detect_function, outputs_by_image


def evaluate_source(
    model: Callable, source_pass: SourcePass, class_names: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the COCO figures of a detector on a source, and the detections they were measured on, with its labels.

    Args:
        model: as `detect_source` takes it.
        source_pass: the source and how its images are given to the model.
        class_names: the names of the model's labels; the source's must be among them.

    Raises:
        ValueError: if the model lacks a class of the source, or the source is empty.
    """
    # The classes are checked before a long evaluation, not after it.
    source_labels(source_pass.source, class_names)
    detections = detect_source(model, source_pass)
    limit = source_pass.config.model.max_detections
    return evaluate_detections(source_pass.source, class_names, detections, limit=limit)


def evaluate_detections(
    source: Source,
    class_names: Sequence[str],
    detections: Sequence[dict[str, Any]],
    rows: Sequence[int] | None = None,
    limit: int = COCO_LIMITS[-1],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the COCO figures of detections on a source, and the detections with its labels.

    Args:
        source: the ground truth.
        class_names: the names of the detections' labels; the source's must be among them.
        detections: as `detect_source` gives them.
        rows: indices of the records that count; None: all.
        limit: as `evaluate_coco` takes it.

    Raises:
        ValueError: if the model lacks a class of the source.
    """
    labels = source_labels(source, class_names)
    own = [detection if labels is None else _relabelled(detection, labels) for detection in detections]
    records = (source[index] for index in (range(len(source)) if rows is None else rows))
    return evaluate_coco(records, own, source.class_names, limit), own


def source_labels(source: Source, class_names: Sequence[str]) -> np.ndarray | None:
    """Returns, for each label of a model, the label that a source has for the same class, or -1 if it has none.

    A detector may know more classes than a data set has: one trained on COCO also measures a data set of persons only.
    A class that the data set only lists may be unknown to the model.

    Args:
        source: the data set.
        class_names: the K names of the model's labels.

    Returns:
        (K,) int32, or None where the classes are the same.

    Raises:
        ValueError: if the model lacks a class that has objects in the source, or has two of its name.
    """
    names, wanted = tuple(class_names), tuple(source.class_names)
    if names == wanted:
        return None
    lacking, _ = lacking_classes(source, names)
    if lacking:
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise ValueError(
            f"{source.name}: classes must be among those of the model ({shown}), got {', '.join(lacking)}"
            f"{spelling_hint(lacking, names)}"
        )
    return np.array([wanted.index(name) if name in wanted else -1 for name in names], np.int32)


def _relabelled(detection: dict[str, Any], labels: np.ndarray) -> dict[str, Any]:
    """Gives detections the labels of `source_labels`, and drops those of classes that the source does not have."""
    own = labels[detection["labels"]]
    return {**take_rows({**detection, "labels": own}, own >= 0), FOUND_IN_ALL: len(own)}


def detect_source(model: Callable, source_pass: SourcePass) -> list[dict[str, Any]]:
    """Returns the detections of every image of a source.

    Args:
        model: the padded inference model, or any callable {images, image_sizes} -> its outputs. Pass a
            `detect_function` if you evaluate often: it is not compiled again.
        source_pass: the source and how its images are given to the model.

    Returns:
        list: one dict an image, in the order of the batches: `image_id` int, `boxes` (n, 4) float32 yxyx, pixels of
        the original image, `scores` (n,) float32 from high to low, `labels` (n,) int32. A model with masks gives
        `segmentations` as well, see `segmented`.

    Raises:
        ValueError: if the source is empty, the batch size is below 1 or an image can't be read.
    """
    return list(detections_by_image(model, source_pass))


def detections_by_image(model: Callable, source_pass: SourcePass) -> Iterator[dict[str, Any]]:
    """Yields what `detect_source` returns, image by image: all that an evaluation does but its figures.

    Args:
        model, source_pass: as `detect_source` takes them.

    Raises:
        ValueError: as `detect_source`.
    """
    rule = source_pass.config.model.pasting
    for image_id, row in outputs_by_image(model, source_pass):
        yield {"image_id": image_id, **segmented(original_detections(row), row["original_sizes"], rule)}


def detect_image(model: Callable, image: AnyImage, resize_rule: InputConfig, image_id: int = 0) -> dict[str, Any]:
    """Returns the detections of one image, as `detect_source` gives them, but with `masks` (n, M, M) where a model has them.

    Args:
        model: as `detect_source` takes it.
        image: (H, W, 3) uint8 RGB, or an image as `decode_picture` gives it.
        resize_rule: `input` of the run's config.
        image_id: goes into the result.

    Raises:
        ValueError: if `image` is not such an array.
    """
    resized, (height, width) = prepare_image(image, resize_rule)
    # Padded as in evaluation: the result is the same, and images of nearly equal sizes share a graph.
    below, right = -height % resize_rule.divisor, -width % resize_rule.divisor
    padded = np.pad(resized, ((0, below), (0, right), (0, 0)))[None]
    with explained_memory(lambda: large_images(padded.shape)):
        outputs = detect_function(model)({"images": padded, "image_sizes": np.array([[height, width]], np.int32)})
        return _of_one(outputs, (height, width), image, image_id)


def detect_unpadded(detect: Callable, image: AnyImage, resize_rule: InputConfig, image_id: int = 0) -> dict[str, Any]:
    """Returns the detections of one image by a function that takes images without padding.

    Args:
        detect: function of images (1, H, W, 3) float32, 0..255, that gives a detector's outputs: an ONNX file's, or that
            of a model without the input `image_sizes`.
        image, resize_rule, image_id: as `detect_image` takes them.

    Raises:
        ValueError: if `image` is not such an array.
    """
    resized, size = prepare_image(image, resize_rule)
    with explained_memory(lambda: large_images((1, *size))):
        return _of_one(detect(resized[None].astype(np.float32)), size, image, image_id)


def _of_one(outputs: dict[str, Any], size: tuple[int, int], image: AnyImage, image_id: int) -> dict[str, Any]:
    """Maps the outputs of a batch of one image of a size to the image's own pixels."""
    row = {name: np.asarray(value)[0] for name, value in outputs.items()}
    row |= {"image_sizes": np.array(size), "original_sizes": np.array(as_decoded(image).size)}
    return {"image_id": image_id, **original_detections(row)}


def original_detections(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the detections of one image's outputs, mapped to its original pixels.

    Args:
        row: of `outputs_by_image`.

    Returns:
        dict: `boxes`, `scores` and `labels` of `detect_source`; of a model with masks also `masks` (n, M, M) float32 in 0..1,
        within their boxes.
    """
    count = int(row["num_detections"])
    masks = {"masks": row["masks"][:count].astype(np.float32)} if "masks" in row else {}
    return {
        "boxes": to_original(row["boxes"][:count], row["image_sizes"], row["original_sizes"]),
        "scores": row["scores"][:count].astype(np.float32),
        "labels": row["labels"][:count].astype(np.int32),
        **masks,
    }


def to_original(boxes: np.ndarray, size: np.ndarray, original_size: np.ndarray) -> np.ndarray:
    """Maps boxes of a resized image to the original one and clips them to it.

    Args:
        boxes: (n, 4) yxyx pixels of the resized image.
        size: (2,) its height and width.
        original_size: (2,) height and width of the original image.

    Returns:
        (n, 4) float32 yxyx pixels of the original image.
    """
    # Each axis has a scale of its own: the resized size is rounded to whole pixels, so the two differ a little.
    scale = np.tile(np.asarray(original_size, np.float64) / np.asarray(size, np.float64), 2)
    limit = np.tile(np.asarray(original_size, np.float64), 2)
    return np.clip(np.asarray(boxes, np.float64) * scale, 0.0, limit).astype(np.float32)
