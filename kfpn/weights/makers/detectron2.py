"""Reads detectron2's `faster_rcnn_R_*_FPN`, `mask_rcnn_R_*_FPN` and `cascade_mask_rcnn_R_*_FPN` detectors, and the ImageNet ResNets that have its own names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from kfpn.config.model import network_name
from kfpn.weights.makers.coco_classes import coco_classes
from kfpn.weights.makers.detector_layout import (
    BOX_LAYERS,
    COMMON_SETTINGS,
    STAGE_ENDINGS,
    detector_entries,
    to_kfpn_layout,
)
from kfpn.weights.makers.foreign_arrays import ForeignArrays
from kfpn.weights.makers.resnet_names import PyTorchNames, detectron2_naming, flip_channels, read_pytorch
from kfpn.weights.makers.torchvision import BACKBONE as TORCHVISION_BACKBONE
from kfpn.weights.makers.trained_weights import TrainedWeights

BLOCK = r"(backbone\.bottom_up\.)?res(?P<stage>\d+)\.(?P<block>\d+)\.conv(?P<part>\d)\.weight$"

# detectron2/config/defaults.py: STRIDE_IN_1X1, PIXEL_MEAN (B, G, R) and PIXEL_STD.
BACKBONE = {
    "stride_on": "1x1",
    "norm_epsilon": 1e-5,
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (1.0, 1.0, 1.0),
}

# The same file, with configs/Base-RCNN-FPN.yaml.
DETECTOR = {
    **COMMON_SETTINGS,
    "round_anchors": False,
    "anchor_strides": "level",
    "post_nms_train": 1000,
    "min_proposal_size": 0.0,
    "sampling_ratio": 0,
    "aligned": True,
    "min_detection_size": 0.0,
    "pasting": "sampled",
}
# configs/Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml, where it differs.
OF_CASCADE = {"post_nms_train": 2000}
SAMPLING = {"rpn_box_beta": 0.0, "roi_box_beta": 0.0}

DETECTOR_NAMES: dict[str, tuple[str, ...]] = {
    **{f"{layer}_{i}": (f"backbone.fpn_{layer}{i}",) for layer in ("lateral", "output") for i in range(2, 6)},
    "rpn_conv": ("proposal_generator.rpn_head.conv",),
    "rpn_logits": ("proposal_generator.rpn_head.objectness_logits",),
    "rpn_deltas": ("proposal_generator.rpn_head.anchor_deltas",),
    "head_fc1": ("roi_heads.box_head.fc1",),
    "head_fc2": ("roi_heads.box_head.fc2",),
    "head_logits": ("roi_heads.box_predictor.cls_score",),
    "head_deltas": ("roi_heads.box_predictor.bbox_pred",),
    **{f"mask_conv{i}": (f"roi_heads.mask_head.mask_fcn{i}",) for i in range(1, 5)},
    "mask_deconv": ("roi_heads.mask_head.deconv",),
    "mask_logits": ("roi_heads.mask_head.predictor",),
}
"""kfpn's layer -> detectron2's names for it."""
CASCADE_NAMES = DETECTOR_NAMES | {
    f"{layer}{ending}": (
        DETECTOR_NAMES[layer][0].replace("box_head.", f"box_head.{i}.").replace("predictor.", f"predictor.{i}."),
    )
    for i, ending in enumerate(STAGE_ENDINGS)
    for layer in BOX_LAYERS
}
"""The same for a Cascade R-CNN."""

CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors."
PIXELS = ("pixel_mean", "pixel_std")

UNSUPPORTED = {
    "roi_heads.keypoint_head.": "Keypoint R-CNN",
    "roi_heads.res5.": "a C4 detector (its box head is the backbone's conv5)",
    "roi_heads.box_head.0.conv": "Cascade R-CNN with convolutions in its box heads",
    "head.cls_subnet.": "RetinaNet",
}
"""The begin of an array's name -> the network of detectron2's that has it and that kfpn does not have."""


def is_detectron2(foreign: ForeignArrays) -> bool:
    """Tells whether arrays have the names of one of detectron2's detectors or ResNets."""
    return foreign.has("backbone.bottom_up.", "backbone.res", "backbone.stem.", "stem.conv1.", "roi_heads.res5.")


def read(foreign: ForeignArrays) -> TrainedWeights:
    """Reads a detector or a backbone of detectron2's.

    Args:
        foreign: all arrays of the file. The author "torchvision" says that a backbone was converted from there.

    Raises:
        ValueError: if it is another network, or tensors are missing or left over.
    """
    for start, network in UNSUPPORTED.items():
        if foreign.has(start):
            raise ValueError(
                f"{foreign.path}: must be a Faster, Mask or Cascade R-CNN with FPN or a ResNet of detectron2's, got {network}: not supported"
            )
    foreign, _ = foreign.drop_matching(r".*\.num_batches_tracked$")
    if foreign.has("backbone.bottom_up."):
        return _detectron2_detector(foreign)
    if foreign.has("backbone.", "roi_heads.", "proposal_generator."):
        raise ValueError(
            f"{foreign.path}: must be a Faster R-CNN with FPN, got a detectron2 detector without a pyramid (DC5 or C4): not supported"
        )
    foreign, classifier = foreign.drop_matching(r"(stem\.fc|fc|linear)\.")
    converted = foreign.author == "torchvision"
    settings = TORCHVISION_BACKBONE if converted else BACKBONE
    tensors, model = read_pytorch(foreign, PyTorchNames(BLOCK, detectron2_naming), settings)
    if not converted:
        tensors = flip_channels(tensors)
    notes = tuple(f"left out the classifier: {name}" for name in classifier)
    return TrainedWeights(foreign.path, f"detectron2 {model['backbone']}, ImageNet", model, {}, tensors, notes=notes)


def _detectron2_detector(foreign: ForeignArrays) -> TrainedWeights:
    buffers = {name: value for name, value in foreign.arrays.items() if name in PIXELS or name.startswith(CELL_ANCHORS)}
    layers = {name: value for name, value in foreign.arrays.items() if name not in buffers}
    names = PyTorchNames(BLOCK, detectron2_naming, "backbone.bottom_up.")
    mask, cascade = foreign.has("roi_heads.mask_head."), foreign.has("roi_heads.box_head.0.")
    entries = detector_entries(CASCADE_NAMES if cascade else DETECTOR_NAMES, mask, cascade)
    tensors, backbone = read_pytorch(dataclasses.replace(foreign, arrays=layers), names, BACKBONE, entries)
    pixels, bgr, notes = _pixel_settings(foreign.path, buffers)
    settings: dict[str, Any] = {
        **DETECTOR,
        **(OF_CASCADE if cascade else {}),
        **_anchor_settings(foreign.path, buffers),
    }
    ratios = len(settings["aspect_ratios"])
    tensors, sizes = to_kfpn_layout(foreign.path, tensors, ratios, background_first=False)
    model, classes = {**backbone, **pixels, **settings, **sizes}, sizes["num_classes"]
    class_names, category_ids = coco_classes(classes) if classes == 80 else (None, None)
    kind = f"detectron2 {network_name(mask, cascade)} {model['backbone']} FPN, {classes} classes"
    tensors = flip_channels(tensors) if bgr else tensors
    sampling = {**SAMPLING, "mask_targets": "polygons"} if mask else SAMPLING
    return TrainedWeights(foreign.path, kind, model, sampling, tensors, class_names, category_ids, notes)


def _pixel_settings(path: str, buffers: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], bool, tuple[str, ...]]:
    """Returns the pixel settings, whether the stem takes BGR, and notes on what was assumed."""
    if "pixel_mean" not in buffers or "pixel_std" not in buffers:
        note = "the file doesn't hold pixel_mean and pixel_std: detectron2's defaults are taken, BGR and stride on 1x1"
        return {}, True, (note,)
    mean, std = (tuple(np.ravel(buffers[name]).astype(float).round(4).tolist()) for name in PIXELS)
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{path}: pixel_mean and pixel_std must have three values each, got {mean} and {std}")
    # Red is the brightest channel of photographs (123.7 against 103.5 for blue), so a mean that rises from the first
    # channel to the last is in BGR, which is detectron2's default.
    bgr = mean[0] <= mean[2]
    if bgr:
        mean, std = mean[::-1], std[::-1]
    if all(value == 1.0 for value in std):
        return {"pixel_mean": mean, "pixel_std": std}, bgr, ()
    # Of detectron2's configs, only those for torchvision's backbones divide by a standard deviation.
    settings = {"pixel_mean": mean, "pixel_std": std, "stride_on": "3x3"}
    return settings, bgr, (f"pixel_std {std}: taken for a torchvision backbone, which strides on its 3x3 convolutions",)


def _anchor_settings(path: str, buffers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the sizes and ratios of the anchors if the file holds its cell anchors, else {}."""
    cells = [np.asarray(buffers[name], np.float64) for name in sorted(buffers) if name.startswith(CELL_ANCHORS)]
    if not cells:
        return {}
    if len(cells) != 5 or any(cell.shape != cells[0].shape or cell.ndim != 2 or cell.shape[1] != 4 for cell in cells):
        raise ValueError(
            f"{path}: there must be cell anchors of five levels, got shapes {[cell.shape for cell in cells]}: "
            "a detector without P2 to P6 is not supported"
        )
    sides = [(cell[:, 3] - cell[:, 1], cell[:, 2] - cell[:, 0]) for cell in cells]
    sizes = [np.sqrt(height * width) for height, width in sides]
    ratios = [height / width for height, width in sides]
    uniform = all(np.allclose(size, size[0], rtol=1e-3) for size in sizes)
    if not uniform or any(not np.allclose(ratio, ratios[0], rtol=1e-3) for ratio in ratios):
        raise ValueError(
            f"{path}: cell anchors must have one size a level and the same ratios on all, got {sizes} and {ratios}"
        )
    return {
        "anchor_sizes": tuple(round(float(size[0]), 3) for size in sizes),
        "aspect_ratios": tuple(round(float(ratio), 4) for ratio in ratios[0]),
    }
