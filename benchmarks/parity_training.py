"""Compares one training step with the reference's, from the anchors and RoIs that the reference sampled, with masks or without."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from parity_masks import mask_batch
from parity_reference import XYXY, Imported, Row, image_of, to_xyxy

from kfpn.config.run import Config, SamplingConfig
from kfpn.losses.matching import MatchRule, match
from kfpn.losses.targets import Targets, positive_rows
from kfpn.losses.training_losses import head_losses, rpn_losses
from kfpn.modeling.detector import Detector, Rois
from kfpn.modeling.proposals import level_anchors
from kfpn.ops import boxes as box_ops
from kfpn.weights.built_detector import variables_of


def training_rows(imported: Imported) -> Iterator[Row]:
    """Compares the matches, the targets, the losses and the norms of all gradients."""
    if imported.reference.train is None:
        return
    train, model = imported.reference.train, imported.config
    config = Config(model=model, sampling=SamplingConfig(**imported.trained.sampling))
    images, sizes = image_of(train)
    variables = {key: variable for key, variable in variables_of(imported.submodels).items() if variable.trainable}
    with tf.GradientTape(persistent=True) as tape:
        detector = Detector(imported.submodels, model)
        levels, outputs = detector.convolve(images, sizes, training=True)
        anchors = tf.concat([part[0] for part in level_anchors(levels, sizes, model)], axis=0)
        anchor_targets, matched = _anchor_targets(imported, anchors, config)
        roi_targets = _roi_targets(imported)
        rois = Rois(roi_targets.boxes, targets=roi_targets)
        heads, batch = detector.second_stage(levels, rois.boxes, sizes, training=True), {}
        if model.mask:
            first = rois.boxes[:, : positive_rows(config.sampling)]
            heads |= detector.second_stage(levels, first, sizes, training=True, names=["mask"])
            batch = mask_batch(imported)
        losses = {**rpn_losses(outputs, anchor_targets, config), **head_losses(heads, rois, batch, config)}
        total = tf.add_n([tf.reduce_sum(loss) for loss in losses.values()])
    values = [variable.value for variable in variables.values()]
    gradients = dict(zip(variables, tape.gradient(total, values), strict=True))
    wrong = int(np.sum(matched != train["rpn_matched"]))
    yield Row("matched anchors that differ", wrong, 0, f"of {len(train['rpn_matched'])}")
    order, positive = _positives_first(imported)
    difference = np.abs(to_xyxy(roi_targets.deltas[0]) - train["sampled_box_targets"][order])[positive].max()
    yield Row("box targets of positive RoIs", float(difference), 1e-3, "")
    their_names = {
        "rpn_class": ("loss_objectness", "loss_rpn_cls"), "rpn_box": ("loss_rpn_box_reg", "loss_rpn_loc"),
        "roi_class": ("loss_classifier", "loss_cls"), "roi_box": ("loss_box_reg", "loss_box_reg"),
    }  # fmt: skip
    if model.mask:
        their_names["roi_mask"] = ("loss_mask", "loss_mask")
    for name, (torchvision, detectron2) in their_names.items():
        expected = float(train[f"loss/{torchvision if imported.reference.background_first else detectron2}"])
        yield Row(f"loss {name}", abs(float(losses[name][0]) - expected) / abs(expected), 1e-4, "relative")
    yield _gradient_row(imported, gradients, "grad_norm")
    if model.mask:
        of_masks = dict(zip(variables, tape.gradient(losses["roi_mask"], values), strict=True))
        yield _gradient_row(
            imported, {key: value for key, value in of_masks.items() if value is not None}, "mask_grad_norm"
        )


def _gradient_row(imported: Imported, gradients: dict[str, Any], kind: str) -> Row:
    """Compares the norms of the gradients of all losses ("grad_norm"), or of the masks' ("mask_grad_norm")."""
    train, worst = imported.reference.train, 0.0
    theirs = {key.removeprefix(f"{kind}/") for key in train.files if key.startswith(f"{kind}/")}
    own = {imported.trained.tensors[key].name: gradient for key, gradient in gradients.items()}
    if set(own) != theirs:
        raise ValueError(
            f"gradients must be those of the reference: missing {sorted(theirs - set(own))}, "
            f"got besides {sorted(set(own) - theirs)}"
        )
    for name, gradient in own.items():
        expected = float(train[f"{kind}/{name}"])
        difference = abs(float(tf.norm(gradient)) - expected)
        worst = max(
            worst, difference / (expected or 1.0)
        )  # where no loss reaches a parameter, the norm itself must be 0
    of = " of the masks' loss" if kind == "mask_grad_norm" else ""
    return Row(f"norms of {len(own)} gradients{of}", worst, 2e-3, "relative")


def _gt(imported: Imported) -> tuple[tf.Tensor, np.ndarray]:
    """Returns the ground-truth boxes (G, 4) yxyx and their labels (G,), without the background's label."""
    train = imported.reference.train
    labels = train["gt_labels"] - (1 if imported.reference.background_first else 0)
    return tf.constant(train["gt_boxes"][:, XYXY].astype(np.float32)), labels.astype(np.int32)


def _anchor_targets(imported: Imported, anchors: tf.Tensor, config: Config) -> tuple[Targets, np.ndarray]:
    """Returns the targets of the reference's sampled anchors, and the matching of all anchors (N,)."""
    train, sampling = imported.reference.train, config.sampling
    boxes, labels = _gt(imported)
    gt = {
        "gt_boxes": boxes[None],
        "gt_labels": tf.constant(labels[None]),
        "gt_crowd": tf.zeros((1, len(labels)), tf.bool),
    }
    rule = MatchRule(sampling.rpn_positive_iou, sampling.rpn_negative_iou, keep_best=True)
    matched, gt_index = match(anchors[None], gt, rule)
    positive, negative = train["rpn_sampled_pos"], train["rpn_sampled_neg"]
    index = tf.constant(np.concatenate([positive, negative])[None].astype(np.int32))
    chosen = tf.gather(anchors, index[0])
    deltas = box_ops.encode_boxes(tf.gather(boxes, tf.gather(gt_index[0], index[0])), chosen, box_ops.RPN_DELTA_SCALE)
    is_positive = tf.constant((np.arange(index.shape[1]) < len(positive))[None])
    valid = tf.ones_like(is_positive)
    return Targets(index, is_positive, valid, tf.zeros_like(index), deltas[None], chosen[None]), np.array(matched[0])


def _labels(imported: Imported) -> np.ndarray:
    """Returns the labels of the sampled RoIs, with the background last."""
    labels, classes = imported.reference.train["sampled_labels"], imported.config.num_classes
    if imported.reference.background_first:
        labels = np.where(labels == 0, classes, labels - 1)
    return labels.astype(np.int32)


def _positives_first(imported: Imported) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order in which the positive RoIs come first, as in kfpn's samples, and which are positive in this order."""
    positive = _labels(imported) != imported.config.num_classes
    order = np.argsort(~positive, kind="stable")
    return order, positive[order]


def _roi_targets(imported: Imported) -> Targets:
    """Returns the targets of the reference's sampled RoIs, positives first."""
    order, positive = _positives_first(imported)
    rois = tf.constant(imported.reference.train["sampled_rois"][order][:, XYXY].astype(np.float32))
    boxes, _ = _gt(imported)
    gt_index = tf.argmax(box_ops.iou(rois, boxes), axis=1, output_type=tf.int32)
    labels = _labels(imported)[order]
    deltas = box_ops.encode_boxes(tf.gather(boxes, gt_index), rois, box_ops.HEAD_DELTA_SCALE)
    flags = tf.constant(positive[None])
    return Targets(
        tf.range(len(labels))[None],
        flags,
        tf.ones_like(flags),
        tf.constant(labels[None]),
        deltas[None],
        rois[None],
        gt_index[None],
    )
