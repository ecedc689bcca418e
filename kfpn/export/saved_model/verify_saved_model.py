"""Verifies that a SavedModel gives what the Keras model gives, on images of two sizes and in two batch sizes."""

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from kfpn.config.run import Config
from kfpn.export.asset_files import precision_of_saved_model
from kfpn.export.edge_rows import Rows, Selection, edge_lines
from kfpn.export.saved_model.keras_reference import Reference, SegmentReference
from kfpn.export.saved_model.verify_full_masks import require_pasted
from kfpn.export.segment_comparison import segment_selection, segment_set
from kfpn.export.trained import TrainedDetector, TrainedSegmenter, open_either
from kfpn.export.verify import (
    EXPORT_LIMITS,
    Difference,
    ExportLimits,
    ExportMismatch,
    compare_as_sets,
    drawn_picture,
    full_float32,
)

LEVEL_LIMIT = 2
"""Largest difference of a resized pixel from Pillow's, of 255 levels. Pillow and TensorFlow round halves differently, on
each axis."""


def verify_saved_model(workdir: str | os.PathLike, path: str | os.PathLike) -> dict[str, Difference]:
    """Compares an exported model with the Keras model of a work directory, and prints the differences.

    Args:
        workdir: the work directory that the export was made from.
        path: the SavedModel, a version's folder.

    Returns:
        The largest differences of each signature.

    Raises:
        ValueError: if the folder holds no SavedModel of kfpn.
        ExportMismatch: if it differs by more than `EXPORT_LIMITS` of its precision or `LEVEL_LIMIT`.
    """
    path = Path(path)
    return verify_trained(dataclasses.replace(open_either(workdir), precision=precision_of_saved_model(path)), path)


@full_float32()
def verify_trained(trained: TrainedDetector | TrainedSegmenter, path: Path) -> dict[str, Difference]:
    """Does what `verify_saved_model` does, with a detector that is loaded already, and the limits of its precision."""
    if not tf.saved_model.contains_saved_model(str(path)):
        raise ValueError(f"{path} must be a SavedModel, got a folder without one")
    print("verify: runs made images through the export and through the Keras model; this takes a while", flush=True)
    signatures = tf.saved_model.load(str(path)).signatures
    reference = SegmentReference(trained) if isinstance(trained, TrainedSegmenter) else Reference(trained)
    differences: dict[str, Difference] = {}
    for images in image_batches(trained.config):
        expected = reference(images)
        for name, signature in signatures.items():
            outputs = call_signature(signature, images)
            if outputs is not None:
                pasted = require_pasted(outputs, images, trained.config.model.pasting)
                difference = _compare_batch(trained, outputs, images, expected)
                if difference.unmatched and not difference.proposals:
                    with_candidates = reference.with_candidates(images, expected)
                    difference = _compare_batch(trained, outputs, images, with_candidates)
                difference = difference._replace(pasted=pasted)
                differences[name] = differences.get(name, Difference()).plus(difference)
    if not differences:
        raise ValueError(f"{path} must have a signature that kfpn knows, got {', '.join(signatures) or 'none'}")
    for name, difference in differences.items():
        print(
            f"verify {name}: {difference.rows} rows; largest differences: box {difference.box:.2g} px, "
            f"score {difference.score:.2g}{difference.of_masks}; without counterpart: {difference.unmatched}, "
            f"and at the edge of the selection: {len(difference.edge)}"
        )
        if difference.edge and not difference.proposals:
            print("\n".join(edge_lines(name, difference.edge)))
    print(
        f"verify resizing: largest difference from Pillow's {reference.level} of 255 levels, in {reference.share:.2%}"
    )
    _require_equal(differences, EXPORT_LIMITS[trained.precision])
    if reference.level > LEVEL_LIMIT:
        raise ExportMismatch(
            f"resized images must be Pillow's within {LEVEL_LIMIT} of 255 levels, got {reference.level}"
        )
    return differences


def _require_equal(differences: dict[str, Difference], limits: ExportLimits) -> None:
    for name, difference in differences.items():
        share = limits.unmatched_proposals if difference.proposals else limits.unmatched
        if difference.unmatched > share * difference.rows:
            raise ExportMismatch(
                f"{name} must give boxes within {limits.box} pixels and scores within {limits.score} of the Keras model, "
                f"got {difference.unmatched} of {difference.rows} rows without counterpart"
            )
        difference.require_equal_masks(name, limits.mask)
    if not sum(difference.rows for difference in differences.values()):
        raise ExportMismatch("the model must find something in the test images, got nothing to compare")


def image_batches(config: Config) -> Iterator[list[np.ndarray]]:
    """Yields batches of pictures (H, W, 3) uint8 to compare on.

    One and two pictures of a size that the network takes as it is, one and two of a size that is resized, and two of
    different sizes.
    """
    short, longer = config.input.short_side, min(config.input.long_side, config.input.short_side * 4 // 3)
    sizes = ((short, longer), (longer * 3 // 4, short * 2 // 3))
    rng = np.random.default_rng(0)
    first, second = ([drawn_picture(rng, *size) for _ in range(2)] for size in sizes)
    yield from (first[:1], first, second[:1], second, [first[1], second[0]])


def call_signature(signature: Any, images: list[np.ndarray]) -> dict[str, np.ndarray] | None:
    """Runs one signature on one batch; None where the signature cannot take the batch, or is unknown."""
    # The inputs tell what a signature takes. Its name does not: Keras calls the first signature serving_default too,
    # where no signature has that name.
    inputs = set(signature.structured_input_signature[1])
    if inputs == {"image_bytes"}:
        outputs = signature(image_bytes=tf.constant([_png(image) for image in images]))
    elif inputs == {"images"} and len({image.shape for image in images}) == 1:
        outputs = signature(images=tf.constant(np.stack(images)))
    else:
        return None
    return {name: value.numpy() for name, value in outputs.items()}


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _compare_batch(
    trained: TrainedDetector | TrainedSegmenter,
    outputs: dict[str, np.ndarray],
    images: list[np.ndarray],
    expected: list[dict[str, Any]],
) -> Difference:
    """Compares the outputs of one signature with the results of `Reference` on the same images."""
    proposes = "proposal_boxes" in outputs
    total, limits = Difference(proposals=proposes), EXPORT_LIMITS[trained.precision]
    for i, (image, reference) in enumerate(zip(images, expected, strict=True)):
        own = {name: value[i] for name, value in outputs.items()}
        if isinstance(trained, TrainedSegmenter):
            ours, theirs, selection = _segment_rows(own, reference)
        else:
            ours, theirs, selection = (_proposal_rows if proposes else _detection_rows)(trained, own, reference)
        scale = np.tile(reference["size"], 2)
        to_input = scale / np.tile(image.shape[:2], 2)
        in_input = (ours[0] * to_input, *ours[1:]), (theirs[0] * scale, *theirs[1:])
        total = total.plus(compare_as_sets(*in_input, selection, limits.score, limits.box))
    return total


def _proposal_rows(
    trained: TrainedDetector, outputs: dict[str, np.ndarray], reference: dict[str, np.ndarray]
) -> tuple[Rows, Rows, Selection]:
    """Returns boxes, scores and classes of Keras' and the export's proposals for one image, and how they were selected."""
    boxes, scores = reference["proposal_boxes"], reference["proposal_scores"]
    rows = outputs["proposal_scores"] > 0
    theirs = outputs["proposal_boxes"][rows], outputs["proposal_scores"][rows], np.zeros(rows.sum())
    selection = Selection(most=trained.config.model.post_nms_test)
    return (boxes, scores, np.zeros(len(scores))), theirs, selection


def _segment_rows(outputs: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> tuple[Rows, Rows, Selection]:
    """Returns the rows of Keras' and the export's segments in one image, and how they were selected."""
    theirs = {name: outputs[f"segment_{name}"] for name in ("boxes", "scores", "masks", "levels", "windows")}
    ours = tuple(reference[name] for name in ("boxes", "scores", "labels", "masks"))
    selection = segment_selection(len(outputs["segment_scores"]))
    return ours, segment_set(theirs, int(outputs["num_segments"])), selection


def _detection_rows(
    trained: TrainedDetector, outputs: dict[str, np.ndarray], reference: dict[str, Any]
) -> tuple[Rows, Rows, Selection]:
    """Returns the rows of Keras' and the export's detections in one image, and how they were selected."""
    config, masks = trained.config.model, ("masks",) if trained.config.model.mask else ()
    exists = np.arange(len(outputs["detection_scores"])) < outputs["num_detections"]
    theirs = tuple(outputs[f"detection_{key}"][exists] for key in ("boxes", "scores", "classes", *masks))
    classes = np.array(trained.category_ids)[reference["labels"]]
    ours = (reference["boxes"], reference["scores"], classes, *(reference[key] for key in masks))
    candidates = reference.get("candidates")
    return ours, theirs, Selection(config.score_threshold, config.max_detections, config.nms_iou, candidates)
