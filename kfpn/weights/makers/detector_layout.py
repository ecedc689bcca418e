"""Brings the Faster R-CNN FPN detectors of torchvision and detectron2 into kfpn's layout, and holds their common settings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kfpn.config.model import CASCADE
from kfpn.weights.makers.foreign_arrays import Entry, layer_entries
from kfpn.weights.makers.trained_weights import Layout, Tensor

# The defaults on which torchvision's FasterRCNN and detectron2 (config/defaults.py with configs/Base-RCNN-FPN.yaml) agree.
COMMON_SETTINGS: dict[str, Any] = {
    "pyramid": "fpn",
    "upsampling": "nearest",
    "merge": "sum",
    "smooth_p5": True,
    "p6": True,
    "shared_rpn": True,
    "norm_heads": False,
    "canonical_size": 224.0,
    "padding": "foreign",
    "anchor_sizes": (32.0, 64.0, 128.0, 256.0, 512.0),
    "aspect_ratios": (0.5, 1.0, 2.0),
    "pre_nms_train": 2000,
    "pre_nms_test": 1000,
    "post_nms_test": 1000,
    "rpn_nms_iou": 0.7,
    "score_threshold": 0.05,
    "nms_iou": 0.5,
    "max_detections": 100,
}

LAYOUTS: dict[str, Layout] = {
    **{f"{layer}_{level}": "conv" for level in range(2, 6) for layer in ("lateral", "output")},
    **dict.fromkeys(("rpn_conv", "rpn_logits", "rpn_deltas"), "conv"),
}
"""Layer of the pyramid and of the RPN -> the order of its kernel's axes, in both libraries."""

BOX_LAYERS = ("head_fc1", "head_fc2", "head_logits", "head_deltas")
"""The layers of a box head."""
STAGE_ENDINGS = tuple(head.removeprefix(CASCADE[0]) for head in CASCADE)
"""What the names of the layers of a cascade's box heads end in, the first stage before the others."""

MASK_LAYERS = (*(f"mask_conv{i}" for i in range(1, 5)), "mask_deconv", "mask_logits")
"""The layers of the mask head. A transposed convolution has (in, out, h, w) there and (h, w, out, in) here: the same turn of axes."""


def stages_of(cascade: bool) -> tuple[str, ...]:
    """Returns the endings of the box heads' names, of `STAGE_ENDINGS`: all with a cascade, else that of the only head."""
    return STAGE_ENDINGS if cascade else STAGE_ENDINGS[:1]


def detector_entries(names: Mapping[str, tuple[str, ...]], mask: bool, cascade: bool = False) -> list[Entry]:
    """Returns the entries of pyramid, RPN and heads.

    Args:
        names: the names that each layer of `LAYOUTS`, of `BOX_LAYERS` with their stages, and of `MASK_LAYERS` may have in the file.
        mask: whether the file has a mask head.
        cascade: whether it has three box heads.
    """
    of_boxes = [f"{layer}{stage}" for stage in stages_of(cascade) for layer in BOX_LAYERS]
    layouts = LAYOUTS | dict.fromkeys(of_boxes, "dense") | (dict.fromkeys(MASK_LAYERS, "conv") if mask else {})
    return [entry for layer, layout in layouts.items() for entry in layer_entries(layer, names[layer], layout)]


def to_kfpn_layout(
    path: str, tensors: Mapping[str, Tensor], ratios: int, background_first: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Brings a detector's tensors into kfpn's order of channels, of classes and of box sides.

    Args:
        path: the file, for messages.
        tensors: all of `detector_entries`.
        ratios: the number of anchors a cell that kfpn will use; the file must have as many.
        background_first: whether the background is the first class and has deltas of its own (torchvision), or is the
            last class and has none (detectron2).

    Returns:
        The tensors, and the fields of `ModelConfig` that their shapes tell.

    Raises:
        ValueError: if shapes contradict one another, or if the anchors or boxes are of a kind that kfpn does not have.
    """
    stages = stages_of("head_fc1_2/kernel" in tensors)
    (channels, side), *_ = [_roi_features(path, tensors, tensors[f"head_fc1{stage}/kernel"]) for stage in stages]
    anchors = tensors["rpn_logits/bias"].value.size
    if anchors != ratios:
        raise ValueError(
            f"{path}: the RPN must have {ratios} anchors a cell, got {anchors}: the file does not say which, so it is not supported"
        )
    logits = tensors["head_logits/bias"].value.size
    for stage in stages:
        _check_boxes(path, tensors[f"head_deltas{stage}/bias"], logits - (not background_first), len(stages) > 1)
    first = {key: tensors[key] for key in (f"head_fc1{stage}/kernel" for stage in stages)}
    ordered = _deltas_to_yxyx({**tensors, **{key: _cells_first(value, channels) for key, value in first.items()}})
    if background_first:
        ordered = _background_last(ordered)
    sizes: dict[str, Any] = {
        "mask_channels": None,
        "pyramid_channels": channels,
        "head_width": tensors["head_fc2/bias"].value.size,
        "roi_size": side,
    }
    if "mask_logits/bias" in tensors:
        ordered, of_masks = _masks_to_kfpn(path, ordered, logits, background_first)
        sizes |= of_masks
    if len(stages) > 1:
        sizes |= {"cascade": True}
    return ordered, sizes | {"num_classes": logits - 1}


def _check_boxes(path: str, bias: Tensor, classes: int, cascade: bool) -> None:
    """Checks that a box head has as many boxes as kfpn has: one for each class, in a cascade one for all.

    Args:
        path: the file, for messages.
        bias: of the head's deltas.
        classes: that have deltas there.
        cascade: whether the head belongs to one.

    Raises:
        ValueError: if it has another number.
    """
    count, wanted = bias.value.size, 4 if cascade else 4 * classes
    if count != wanted:
        each = "one box for all classes of a cascade" if cascade else "four a class"
        agnostic = count in (4, 8) and not cascade
        why = " (class-agnostic: one box for all classes is not supported)" if agnostic else ""
        raise ValueError(f"{path}: {bias.name} must have {wanted} values, {each}, got {count}{why}")


def _masks_to_kfpn(
    path: str, tensors: Mapping[str, Tensor], logits: int, background_first: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Drops the mask of the background, and returns the fields of `ModelConfig` that the mask head tells.

    Args:
        path, background_first: as for `to_kfpn_layout`.
        tensors: with those of a mask head.
        logits: K + 1, classes of the box head with the background.
    """
    bias, given = tensors["mask_logits/bias"], dict(tensors)
    masks = bias.value.size
    wanted = logits if background_first else logits - 1
    if masks not in (wanted, 1):
        raise ValueError(f"{path}: {bias.name} must have {wanted} values, a mask a class, or 1, got {masks}")
    if background_first and masks > 1:
        for part in ("kernel", "bias"):
            tensor = tensors[f"mask_logits/{part}"]
            given[f"mask_logits/{part}"] = tensor._replace(value=tensor.value[..., 1:])
    settings = {
        "mask": True,
        "mask_channels": tensors["mask_conv1/bias"].value.size,
        "mask_classes": "each" if masks > 1 or wanted == 1 else "agnostic",
    }
    return given, settings


def _roi_features(path: str, tensors: Mapping[str, Tensor], fc1: Tensor) -> tuple[int, int]:
    """Returns C and S of the RoI features (S, S, C) that a box head takes, whose first kernel is `fc1`."""
    channels = tensors["output_2/bias"].value.size
    side = round((fc1.value.shape[0] / channels) ** 0.5) if channels else 0
    if side * side * channels != fc1.value.shape[0]:
        raise ValueError(
            f"{path}: the box head must take square RoI features of the pyramid's {channels} channels, got {fc1.name} {fc1.shape}"
        )
    return channels, side


def _cells_first(fc1: Tensor, channels: int) -> Tensor:
    """Reorders the inputs of the first dense layer from (C, S, S) to (S, S, C)."""
    units = fc1.value.shape[1]
    return fc1._replace(value=fc1.value.reshape(channels, -1, units).transpose(1, 0, 2).reshape(-1, units))


def _deltas_to_yxyx(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turns (dx, dy, dw, dh) into (dy, dx, dh, dw), anchor by anchor and class by class."""
    turned = dict(tensors)
    for key in (key for key in tensors if key.startswith(("rpn_deltas", "head_deltas"))):
        value = tensors[key].value
        # Other shapes fit no model: `assign_weights` names them together with all that do not fit.
        if value.shape[-1] % 4 == 0:
            boxes = value.reshape(*value.shape[:-1], -1, 4)[..., [1, 0, 3, 2]]
            turned[key] = tensors[key]._replace(value=boxes.reshape(value.shape))
    return turned


def _background_last(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Moves the background from the first logit to the last, and drops its deltas, which no detector uses."""
    moved = dict(tensors)
    for part in ("kernel", "bias"):
        logits, deltas = tensors[f"head_logits/{part}"], tensors[f"head_deltas/{part}"]
        moved[f"head_logits/{part}"] = logits._replace(value=np.roll(logits.value, -1, axis=-1))
        moved[f"head_deltas/{part}"] = deltas._replace(value=deltas.value[..., 4:])
    return moved
