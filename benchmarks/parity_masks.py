"""Compares the masks' numbers with those of torchvision's and detectron2's Mask R-CNN, stage by stage, with the same weights."""

import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from parity_reference import XYXY, Imported, Reference, Row, image_of, nchw

from kfpn.data.mask_targets_exact import exact_mask_targets
from kfpn.data.object_masks import ObjectMasks
from kfpn.modeling.detector import Detector, inference_model
from kfpn.modeling.heads.mask import MASK_SIDE, own_logits
from kfpn.ops.boxes import iou
from kfpn.ops.mask_paste import paste_masks

MASK_FOLDERS = ("torchvision_mask_r50", "detectron2_mask_r50")


def mask_rows(imported: Imported) -> Iterator[Row]:
    """Compares the mask head on given boxes: the final ones, and probes that reach all levels."""
    for key, boxes, labels, name in (
        ("", "boxes", "labels", "detections"),
        ("probe_", "probe_rois", "probe_labels", "probes"),
    ):
        infer = imported.reference.infer
        yield from _head_rows(imported, key, infer[boxes][:, XYXY], _labels(imported, infer[labels]), name)
        yield from _pasting_rows(imported, key, infer[boxes][:, XYXY], name)


def _labels(imported: Imported, labels: np.ndarray) -> np.ndarray:
    return (labels - 1 if imported.reference.background_first else labels).astype(np.int32)


def _head_rows(imported: Imported, key: str, boxes: np.ndarray, labels: np.ndarray, name: str) -> Iterator[Row]:
    """Compares the mask head, layer by layer, on boxes (n, 4) yxyx and their labels (n,); `key` begins the reference's names."""
    reference = imported.reference
    _, sizes = image_of(reference.infer)
    pooled = Detector(imported.submodels, imported.config).pool(
        imported.levels, tf.constant(boxes[None]), sizes, "mask"
    )
    head = imported.submodels.heads["mask"]
    outputs = [head.get_layer(layer).output for layer in ("mask_relu4", "mask_relu5", "mask_logits")]
    features, upsampled, logits = keras.Model(head.input, outputs)(pooled, training=False)
    masks = np.asarray(keras.ops.sigmoid(own_logits(logits, tf.constant(labels))))
    skip = None
    logits = nchw(logits)
    if reference.background_first:  # The background's mask is not imported: no detection has it.
        logits = np.pad(logits, ((0, 0), (1, 0), (0, 0), (0, 0)))
        skip = np.zeros(logits.shape, bool)
        skip[:, 0] = True
    yield Row(f"mask RoI features, {name}", reference.compare(f"{key}mask_roi_features", nchw(pooled)), 5e-4, "std")
    yield Row(f"mask features, {name}", reference.compare(f"{key}mask_features", nchw(features)), 5e-4, "std")
    yield Row(
        f"upsampled mask features, {name}", reference.compare(f"{key}mask_upsampled", nchw(upsampled)), 5e-4, "std"
    )
    yield Row(f"mask logits, {name}", reference.compare(f"{key}mask_logits", logits, skip), 5e-4, "std")
    yield Row(f"masks, {name}", float(np.abs(masks - reference.infer[f"{key}masks"]).max()), 3e-4, "")


def _pasting_rows(imported: Imported, key: str, boxes: np.ndarray, name: str) -> Iterator[Row]:
    """Compares the reference's masks as they are pasted into its image and, for the detections, into a larger or smaller one."""
    infer, rule = imported.reference.infer, imported.config.pasting
    height, width = infer["image"].shape[:2]
    pasted = paste_masks(infer[f"{key}masks"], boxes, height, width, rule=rule)
    yield Row(
        f"pixels of pasted masks that differ, {name}",
        _different(imported.reference, f"{key}pasted", pasted),
        0,
        "of all",
    )
    if not key:
        height, width = infer["resized_shape"].tolist()
        scaled = infer["resized_boxes"][:, XYXY]
        pasted = paste_masks(infer["masks"][: len(scaled)], scaled, height, width, rule=rule)
        yield Row(
            "pixels that differ in another size", _different(imported.reference, "resized_pasted", pasted), 0, "of all"
        )


def _different(reference: Reference, key: str, pasted: np.ndarray) -> int:
    _, expected, _ = reference.rule.expected(reference.infer, key)
    return int((np.asarray(expected).reshape(pasted.shape) != pasted).sum())


def mask_detection_rows(imported: Imported) -> Iterator[Row]:
    """Compares the masks of the final detections, end to end."""
    reference, infer = imported.reference, imported.reference.infer
    images, _ = image_of(infer)
    model = inference_model(imported.submodels, imported.config)
    outputs: dict[str, Any] = {name: np.asarray(value)[0] for name, value in model(images, training=False).items()}
    overlap = np.array(iou(tf.constant(outputs["boxes"]), tf.constant(infer["boxes"][:, XYXY].astype(np.float32))))
    same = outputs["labels"][:, None] == _labels(imported, infer["labels"])[None]
    own, theirs = np.nonzero((overlap > 0.99) & same)
    yield Row(
        "detections with masks", len(set(theirs.tolist())), len(infer["labels"]) - 1, f"found of {len(infer['labels'])}"
    )
    worst = np.abs(outputs["masks"][own] - infer["masks"][theirs]).max()
    yield Row("masks of detections", float(worst), 5e-3, "")
    pasted = paste_masks(
        outputs["masks"][own], outputs["boxes"][own], *infer["image"].shape[:2], rule=imported.config.pasting
    )
    _, expected, _ = reference.rule.expected(infer, "pasted")
    expected = np.asarray(expected).reshape(len(infer["labels"]), *infer["image"].shape[:2])[theirs]
    yield Row(
        "pixels of detections' masks that differ", int((expected != pasted).sum()), 100, f"of {int(expected.sum())}"
    )


def _ground_truth_masks(reference: Reference) -> ObjectMasks:
    """Returns the masks of the training image's objects: bitmaps for torchvision, polygons for detectron2."""
    height, width = reference.train["image"].shape[:2]
    outlines = json.loads(str(reference.train["gt_polygons"]))
    if reference.background_first:
        _, bits, _ = reference.rule.expected(reference.train, "gt_masks")
        outlines = list(np.asarray(bits, bool).reshape(-1, height, width))
    return ObjectMasks.of(outlines, (height, width))


def mask_batch(imported: Imported) -> dict[str, Any]:
    """Returns what the loss of masks reads of a batch: exact targets, by the rule that comes with the weights."""
    masks, rule = _ground_truth_masks(imported.reference), imported.trained.sampling["mask_targets"]

    def exact(rois: tf.Tensor, gt_index: tf.Tensor, side: int) -> tf.Tensor:
        targets, counted = np.zeros((1, *gt_index.shape[1:], side, side), np.float32), np.array(gt_index[0]) >= 0
        targets[0, counted] = exact_mask_targets(
            masks, np.array(rois[0])[counted], np.array(gt_index[0])[counted], side, rule
        )
        return tf.constant(targets)

    return {"gt_has_mask": tf.ones((1, len(masks)), tf.bool), "exact_masks": exact}


def mask_target_rows(imported: Imported) -> Iterator[Row]:
    """Compares what the mask head should predict: for the sampled RoIs, and for made-up ones round the ground truth."""
    reference, train = imported.reference, imported.reference.train
    masks, background = _ground_truth_masks(reference), 0 if reference.background_first else imported.config.num_classes
    positive = np.flatnonzero(train["sampled_labels"] != background)
    pairs = {
        "mask_targets": (train["sampled_rois"][positive], train["sampled_matched"][positive]),
        "target_masks": (train["target_rois"], train["target_matched"]),
    }
    for key, (rois, index) in pairs.items():
        name = "sampled RoIs" if key == "mask_targets" else "made-up RoIs"
        rules = {"": "soft"} if reference.background_first else {"": "polygons", "_bitmask": "bitmaps"}
        for suffix, rule in rules.items():
            own = exact_mask_targets(masks, rois[:, XYXY], index, MASK_SIDE, rule)
            expected = np.reshape(reference.rule.expected(train, key + suffix)[1], own.shape).astype(np.float32)
            worst = np.abs(own - expected).max()
            yield Row(f"mask targets of {name}, {rule}", float(worst), 1e-4 if rule == "soft" else 0, "")
