"""Running a detector over images and whole sources, with boxes in the pixels of the original images."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kfpn.config.run import Config
from kfpn.data.image import load_image
from kfpn.data.pipeline import eval_batches, named_errors, prepare_image
from kfpn.data.proposal_table import ProposalTable, with_proposals
from kfpn.data.record import Record, Source
from kfpn.evaluation.coco_figures import evaluate_coco


def evaluate_source(
    model: Callable,
    source: Source,
    config: Config,
    class_names: Sequence[str],
    batch_size: int | None = None,
    progress: bool = True,
    jit_compile: bool = False,
    proposals: ProposalTable | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the COCO figures of a detector on a source, and the detections they were measured on, with its labels.

    Args:
        class_names: the names of the model's labels; the source's must be among them.
        model, source, config, batch_size, progress, jit_compile, proposals: as `detect_source` takes them.

    Raises:
        ValueError: if the model lacks a class of the source, or the source is empty.
    """
    source_labels(source, class_names)  # said before a long evaluation, not after it
    detections = detect_source(model, source, config, batch_size, progress, jit_compile, proposals)
    return evaluate_detections(source, class_names, detections)


def evaluate_detections(
    source: Source,
    class_names: Sequence[str],
    detections: Sequence[dict[str, Any]],
    rows: Sequence[int] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the COCO figures of detections on a source, and the detections with its labels.

    Args:
        source: the ground truth.
        class_names: the names of the detections' labels; the source's must be among them.
        detections: as `detect_source` gives them.
        rows: indices of the records that count; None: all.

    Raises:
        ValueError: if the model lacks a class of the source.
    """
    labels = source_labels(source, class_names)
    own = [detection if labels is None else _relabelled(detection, labels) for detection in detections]
    records = (source[index] for index in (range(len(source)) if rows is None else rows))
    return evaluate_coco(records, own, source.class_names), own


def source_labels(source: Source, class_names: Sequence[str]) -> np.ndarray | None:
    """Returns what each label of a model is in a source: its label there, -1 where it hasn't the class.

    A detector may know more than a data set has: COCO's finds persons in a set of persons only, and torchvision's has
    labels for the ids that COCO left out.

    Returns:
        (K,) int32, or None where the classes are the same.

    Raises:
        ValueError: if the model lacks a class of the source, or has two of its name.
    """
    names, wanted = tuple(class_names), tuple(source.class_names)
    if names == wanted:
        return None
    lacking = [name for name in wanted if names.count(name) != 1]
    if lacking:
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise ValueError(f"{source.name}: classes must be among those of the model ({shown}), got {', '.join(lacking)}")
    return np.array([wanted.index(name) if name in wanted else -1 for name in names], np.int32)


def _relabelled(detection: dict[str, Any], labels: np.ndarray) -> dict[str, Any]:
    own = labels[detection["labels"]]
    rows = {name: detection[name][own >= 0] for name in ("boxes", "scores")}
    return {**detection, **rows, "labels": own[own >= 0]}


def detect_source(
    model: Callable,
    source: Source,
    config: Config,
    batch_size: int | None = None,
    progress: bool = True,
    jit_compile: bool = False,
    proposals: ProposalTable | None = None,
) -> list[dict[str, Any]]:
    """Returns the detections of every image of a source.

    Args:
        model: the padded inference model, or any callable {images, image_sizes} -> its outputs. A `tf.function` is
            called as it is: who evaluates often compiles once.
        source: what to detect on.
        config: whose `input` says how images are resized.
        batch_size: images at once. None: `config.batch_size`.
        progress: show a bar.
        jit_compile: compile with XLA, once for each padded image size.
        proposals: of the source, for a model that takes them as `fast_rcnn_model` does.

    Returns:
        list: one dict an image, in the order of the batches: `image_id` int, `boxes` (n, 4) float32 yxyx, pixels of
        the original image, `scores` (n,) float32 from high to low, `labels` (n,) int32.

    Raises:
        ValueError: if the source is empty, batch_size is below 1 or an image can't be read.
    """
    found = outputs_by_image(model, source, config, batch_size, progress, jit_compile, proposals=proposals)
    return [{"image_id": image_id, **original_detections(row)} for image_id, row in found]


def outputs_by_image(
    model: Callable,
    source: Source,
    config: Config,
    batch_size: int | None = None,
    progress: bool = True,
    jit_compile: bool = False,
    title: str = "detect",
    proposals: ProposalTable | None = None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields what a model gives for every image of a source, in the order of the batches.

    Args:
        model, source, config, batch_size, progress, jit_compile, proposals: as `detect_source` takes them; the model may
            have any dict of outputs.
        title: of the bar.

    Yields:
        The image's id, and its row of each output and of `image_sizes` and `original_sizes`, (2,) each.

    Raises:
        ValueError: as `detect_source`.
    """
    batch_size = config.batch_size if batch_size is None else batch_size
    if batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
    if not len(source):
        raise ValueError(f"{source.name}: there must be images to detect on, got none")
    call = detect_function(model, jit_compile)
    with tqdm(total=len(source), desc=title, unit="image", disable=not progress, leave=False) as bar:
        batches = eval_batches(source, config, batch_size)
        if proposals is not None:
            batches = with_proposals(batches, proposals, config, config.model.post_nms_test, augmented=False)
        for batch in named_errors(batches):
            outputs = call({name: batch[name] for name in ("images", "image_sizes", "proposals") if name in batch})
            rows = {name: np.asarray(value) for name, value in (outputs | batch).items() if name != "images"}
            for row in np.flatnonzero(rows["record_index"] >= 0):
                image_id = source[int(rows["record_index"][row])].image_id
                yield int(image_id), {name: value[row] for name, value in rows.items()}
                bar.update()


def detect_image(
    model: Callable, image: np.ndarray, config: Config, image_id: int = 0, jit_compile: bool = False
) -> dict[str, Any]:
    """Returns the detections of one image, as `detect_source` gives them.

    Args:
        model: as `detect_source` takes it.
        image: (H, W, 3) uint8 RGB.
        config: whose `input` says how images are resized.
        image_id: goes into the result.
        jit_compile: compile with XLA, once for each padded image size.
    """
    resized, (height, width) = prepare_image(image, config.input)
    # Padded as in evaluation: the same result, and one graph for many nearly equal sizes.
    below, right = -height % config.input.divisor, -width % config.input.divisor
    outputs = detect_function(model, jit_compile)(
        {
            "images": np.pad(resized, ((0, below), (0, right), (0, 0)))[None],
            "image_sizes": np.array([[height, width]], np.int32),
        }
    )
    row = {name: np.asarray(value)[0] for name, value in outputs.items()}
    row |= {"image_sizes": np.array([height, width]), "original_sizes": np.array(image.shape[:2])}
    return {"image_id": image_id, **original_detections(row)}


def detect_record(detect: Callable, record: Record, config: Config) -> dict[str, Any]:
    """Returns the detections of a record by a function that takes one image without padding, as an ONNX file does.

    Args:
        detect: function of images (1, H, W, 3) float32, 0..255, that gives a detector's outputs.
        record: with the image.
        config: whose `input` says how images are resized.
    """
    resized, size = prepare_image(load_image(record), config.input)
    row = {name: np.asarray(value)[0] for name, value in detect(resized[None].astype(np.float32)).items()}
    row |= {"image_sizes": np.array(size), "original_sizes": np.array([record.height, record.width])}
    return {"image_id": int(record.image_id), **original_detections(row)}


def detect_function(model: Callable, jit_compile: bool = False) -> Callable:
    """Returns a model as a `tf.function` (itself if it is one), which keeps a graph for each padded image size."""
    return model if hasattr(model, "get_concrete_function") else tf.function(model, jit_compile=jit_compile)


def original_detections(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the detections of one image's outputs, mapped to its original pixels.

    Args:
        row: of `outputs_by_image`.

    Returns:
        `boxes`, `scores` and `labels` of `detect_source`.
    """
    count = int(row["num_detections"])
    return {
        "boxes": to_original(row["boxes"][:count], row["image_sizes"], row["original_sizes"]),
        "scores": row["scores"][:count].astype(np.float32),
        "labels": row["labels"][:count].astype(np.int32),
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
    # Each axis by itself: rounding the resized size to whole pixels makes the two scales differ a little.
    scale = np.tile(np.asarray(original_size, np.float64) / np.asarray(size, np.float64), 2)
    limit = np.tile(np.asarray(original_size, np.float64), 2)
    return np.clip(np.asarray(boxes, np.float64) * scale, 0.0, limit).astype(np.float32)
