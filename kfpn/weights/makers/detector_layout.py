"""Brings the Faster R-CNN FPN detectors of torchvision and detectron2 into kfpn's layout, and holds their common settings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

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
    **dict.fromkeys(("head_fc1", "head_fc2", "head_logits", "head_deltas"), "dense"),
}
"""Layer behind the backbone -> the order of its kernel's axes, in both libraries."""

MASK_LAYERS = (*(f"mask_conv{i}" for i in range(1, 5)), "mask_deconv", "mask_logits")
"""The layers of the mask head. A transposed convolution has (in, out, h, w) there and (h, w, out, in) here: the same turn of axes."""


def detector_entries(names: Mapping[str, tuple[str, ...]], mask: bool) -> list[Entry]:
    """Returns the entries of pyramid, RPN and heads.

    Args:
        names: the names that each layer of `LAYOUTS` and `MASK_LAYERS` may have in the file.
        mask: whether the file has a mask head.
    """
    layouts = LAYOUTS | (dict.fromkeys(MASK_LAYERS, "conv") if mask else {})
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
    channels, side = _roi_features(path, tensors)
    anchors = tensors["rpn_logits/bias"].value.size
    if anchors != ratios:
        raise ValueError(
            f"{path}: the RPN must have {ratios} anchors a cell, got {anchors}: the file does not say which, so it is not supported"
        )
    logits, deltas = tensors["head_logits/bias"].value.size, tensors["head_deltas/bias"]
    wanted = 4 * (logits if background_first else logits - 1)
    if deltas.value.size != wanted:
        why = " (class-agnostic: one box for all classes is not supported)" if deltas.value.size in (4, 8) else ""
        raise ValueError(f"{path}: {deltas.name} must have {wanted} values, four a class, got {deltas.value.size}{why}")
    ordered = _deltas_to_yxyx({**tensors, "head_fc1/kernel": _cells_first(tensors["head_fc1/kernel"], channels)})
    if background_first:
        ordered = _background_last(ordered)
    sizes = {
        "mask_channels": None,
        "pyramid_channels": channels,
        "head_width": tensors["head_fc2/bias"].value.size,
        "roi_size": side,
    }
    if "mask_logits/bias" in tensors:
        ordered, of_masks = _masks_to_kfpn(path, ordered, logits, background_first)
        sizes |= of_masks
    return ordered, sizes | {"num_classes": logits - 1}


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


def _roi_features(path: str, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Returns C and S of the RoI features (S, S, C) that the box head takes."""
    channels, fc1 = tensors["output_2/bias"].value.size, tensors["head_fc1/kernel"]
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
    for key in ("rpn_deltas/kernel", "rpn_deltas/bias", "head_deltas/kernel", "head_deltas/bias"):
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
