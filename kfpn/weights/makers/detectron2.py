"""detectron2's `faster_rcnn_R_*_FPN` detectors, and the ImageNet ResNets they start from (Caffe2's and its own names)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kfpn.weights.makers.coco_classes import coco_classes
from kfpn.weights.makers.detector_layout import STANDARD, detector_entries, understood
from kfpn.weights.makers.resnet_names import (
    backbone_of,
    backbone_settings,
    caffe2_naming,
    detectron2_naming,
    read_pytorch,
    units,
)
from kfpn.weights.makers.torchvision import BACKBONE as TORCHVISION_BACKBONE
from kfpn.weights.makers.trained_weights import Entry, TrainedWeights, convert, flip_channels, without

BLOCK = r"(backbone\.bottom_up\.)?res(?P<stage>\d+)\.(?P<block>\d+)\.conv(?P<part>\d)\.weight$"
CAFFE2_BLOCK = r"res(?P<stage>\d+)_(?P<block>\d+)_branch2(?P<part>[abc])_w$"

# detectron2/config/defaults.py: STRIDE_IN_1X1, PIXEL_MEAN (B, G, R) and PIXEL_STD.
BACKBONE = {
    "stride_on": "1x1",
    "norm_epsilon": 1e-5,
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (1.0, 1.0, 1.0),
}

# The same file, with configs/Base-RCNN-FPN.yaml.
DETECTOR = {
    **STANDARD,
    "round_anchors": False,
    "anchor_strides": "level",
    "post_nms_train": 1000,
    "min_proposal_size": 0.0,
    "sampling_ratio": 0,
    "aligned": True,
    "min_detection_size": 0.0,
}
SAMPLING = {"rpn_box_beta": 0.0, "roi_box_beta": 0.0}

ANCHORS = "proposal_generator.anchor_generator.cell_anchors."
PIXELS = ("pixel_mean", "pixel_std")

# What other detectors of detectron2's are known by.
OTHERS = (
    ("roi_heads.mask_head.", "Mask R-CNN"),
    ("roi_heads.keypoint_head.", "Keypoint R-CNN"),
    ("roi_heads.res5.", "a C4 detector (its box head is the backbone's conv5)"),
    ("roi_heads.box_head.0.", "Cascade R-CNN"),
    ("head.cls_subnet.", "RetinaNet"),
)


def is_detectron2(names: Mapping[str, object]) -> bool:
    """Whether arrays are called as detectron2 calls them."""
    starts = ("backbone.bottom_up.", "backbone.res", "backbone.stem.", "stem.conv1.", "roi_heads.res5.")
    return any(name.startswith(starts) for name in names)


def is_caffe2(names: Mapping[str, object]) -> bool:
    """Whether arrays are called as Caffe2 (Detectron, MSRA) calls them."""
    return "conv1_w" in names and "res2_0_branch2a_w" in names


def read(path: str, found: Mapping[str, np.ndarray], author: str = "") -> TrainedWeights:
    """Understands a detector or backbone of detectron2's.

    Args:
        path: the file, for messages.
        found: name -> array.
        author: what the file says of itself: "torchvision" for backbones that were converted from there.

    Raises:
        ValueError: if it is another network, or tensors are missing or left over.
    """
    for start, what in OTHERS:
        if any(name.startswith(start) for name in found):
            raise ValueError(
                f"{path}: must be a Faster R-CNN with FPN or a ResNet of detectron2's, got {what}: not supported"
            )
    found, _ = without(found, r".*\.num_batches_tracked$")
    if any(name.startswith("backbone.bottom_up.") for name in found):
        return _detector(path, found)
    if any(name.startswith(("backbone.", "roi_heads.", "proposal_generator.")) for name in found):
        raise ValueError(
            f"{path}: must be a Faster R-CNN with FPN, got a detectron2 detector without a pyramid (DC5 or C4): not supported"
        )
    found, classifier = without(found, r"(stem\.fc|fc|linear)\.")
    settings = TORCHVISION_BACKBONE if author == "torchvision" else BACKBONE
    tensors, model = read_pytorch(path, found, BLOCK, detectron2_naming, settings)
    if author != "torchvision":
        tensors = flip_channels(tensors)
    notes = tuple(f"left out the classifier: {name}" for name in classifier)
    return TrainedWeights(path, f"detectron2 {model['backbone']}, ImageNet", model, {}, tensors, notes=notes)


def read_caffe2(path: str, found: Mapping[str, np.ndarray]) -> TrainedWeights:
    """Understands MSRA's ImageNet ResNets (`R-50.pkl`, `R-101.pkl`): BGR, norms reduced to scale and bias.

    Raises:
        ValueError: if tensors are missing or left over.
    """
    # detectron2 reads neither the classifier nor the bias of the stem.
    found, skipped = without(found, r"(fc1000|pred)_[wb]$|conv1_b$|.*_momentum$")
    backbone = backbone_of(path, found, CAFFE2_BLOCK)
    entries = []
    for unit in units(backbone):
        conv, norm = caffe2_naming(unit)
        entries.append(Entry(f"{unit.name}_conv/kernel", (f"{conv}_w",), "conv"))
        for ours, theirs in (("gamma", "s"), ("beta", "b"), ("moving_mean", "rm"), ("moving_variance", "riv")):
            entries.append(Entry(f"{unit.name}_norm/{ours}", (f"{norm}_{theirs}",)))
        # detectron2's FrozenBatchNorm2d: mean 0 and variance 1 where a file has none.
        like = np.shape(found.get(f"{norm}_s", (0.0,)))
        found.setdefault(f"{norm}_rm", np.zeros(like, np.float32))
        found.setdefault(f"{norm}_riv", np.ones(like, np.float32))
    tensors = flip_channels(convert(path, found, entries))
    notes = (f"left out, as detectron2 does: {', '.join(skipped)}",) if skipped else ()
    model = backbone_settings(BACKBONE, backbone, tensors)
    return TrainedWeights(path, f"Caffe2 (MSRA) {backbone}, ImageNet", model, {}, tensors, notes=notes)


def _names() -> dict[str, tuple[str, ...]]:
    heads = {
        "rpn_conv": "proposal_generator.rpn_head.conv",
        "rpn_logits": "proposal_generator.rpn_head.objectness_logits",
        "rpn_deltas": "proposal_generator.rpn_head.anchor_deltas",
        "head_fc1": "roi_heads.box_head.fc1",
        "head_fc2": "roi_heads.box_head.fc2",
        "head_logits": "roi_heads.box_predictor.cls_score",
        "head_deltas": "roi_heads.box_predictor.bbox_pred",
    }
    pyramid = {f"{layer}_{i}": f"backbone.fpn_{layer}{i}" for layer in ("lateral", "output") for i in range(2, 6)}
    return {layer: (name,) for layer, name in (pyramid | heads).items()}


def _detector(path: str, found: Mapping[str, np.ndarray]) -> TrainedWeights:
    buffers = {name: value for name, value in found.items() if name in PIXELS or name.startswith(ANCHORS)}
    found = {name: value for name, value in found.items() if name not in buffers}
    tensors, backbone = read_pytorch(
        path, found, BLOCK, detectron2_naming, BACKBONE, "backbone.bottom_up.", detector_entries(_names())
    )
    pixels, bgr, notes = _pixels(path, buffers)
    anchors = {**DETECTOR, **_anchors(path, buffers)}
    tensors, sizes = understood(path, tensors, len(anchors["aspect_ratios"]), background_first=False)
    model, classes = {**backbone, **pixels, **anchors, **sizes}, sizes["num_classes"]
    known = coco_classes(classes) if classes == 80 else (None, None)
    kind = f"detectron2 Faster R-CNN {model['backbone']} FPN, {classes} classes"
    tensors = flip_channels(tensors) if bgr else tensors
    return TrainedWeights(path, kind, model, SAMPLING, tensors, known[0], known[1], notes)


def _pixels(path: str, buffers: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], bool, tuple[str, ...]]:
    """Returns pixel settings, whether the stem takes BGR, and what was taken for granted."""
    if "pixel_mean" not in buffers or "pixel_std" not in buffers:
        return (
            {},
            True,
            ("the file doesn't hold pixel_mean and pixel_std: detectron2's defaults are taken, BGR and stride on 1x1",),
        )
    mean, std = (tuple(np.ravel(buffers[name]).astype(float).round(4).tolist()) for name in PIXELS)
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{path}: pixel_mean and pixel_std must have three values each, got {mean} and {std}")
    bgr = mean[0] <= mean[2]  # detectron2's default; red is the brightest channel of photographs: 123.7 against 103.5
    if bgr:
        mean, std = mean[::-1], std[::-1]
    if all(value == 1.0 for value in std):
        return {"pixel_mean": mean, "pixel_std": std}, bgr, ()
    # detectron2's configs for torchvision's backbones, the only ones that divide by a deviation.
    settings = {"pixel_mean": mean, "pixel_std": std, "stride_on": "3x3"}
    return settings, bgr, (f"pixel_std {std}: taken for a torchvision backbone, which strides on its 3x3 convolutions",)


def _anchors(path: str, buffers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the anchors' sizes and ratios where the file holds its cell anchors."""
    cells = [np.asarray(buffers[name], np.float64) for name in sorted(buffers) if name.startswith(ANCHORS)]
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
