"""detectron2's `faster_rcnn_R_*_FPN` detectors, and the ImageNet ResNets they start from (Caffe2's and its own names)."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kfpn.weights.backbones import backbone_of, caffe2_naming, detectron2_naming, pytorch_entries, units
from kfpn.weights.checkpoint import Checkpoint, Entry, Tensor, convert, flip_channels, layer_entries
from kfpn.weights.coco import coco_classes
from kfpn.weights.torchvision import BACKBONE as TORCHVISION_BACKBONE
from kfpn.weights.torchvision import deltas_to_yxyx, detector_sizes, require_boxes_of_classes, require_plain

BLOCK = r"(backbone\.bottom_up\.)?res(?P<stage>\d+)\.(?P<block>\d+)\.conv(?P<part>\d)\.weight$"
CAFFE2_BLOCK = r"res(?P<stage>\d+)_(?P<block>\d+)_branch2(?P<part>[abc])_w$"

# detectron2/config/defaults.py: STRIDE_IN_1X1, PIXEL_MEAN (B, G, R) and PIXEL_STD.
BACKBONE = {
    "stride_on": "1x1",
    "norm": "frozen_bn",
    "norm_epsilon": 1e-5,
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (1.0, 1.0, 1.0),
}

# The same file, with configs/Base-RCNN-FPN.yaml.
DETECTOR = {
    "norm_heads": False,
    "canonical_size": 224.0,
    "anchor_sizes": (32.0, 64.0, 128.0, 256.0, 512.0),
    "aspect_ratios": (0.5, 1.0, 2.0),
    "round_anchors": False,
    "anchor_strides": "level",
    "pre_nms_train": 2000,
    "post_nms_train": 1000,
    "pre_nms_test": 1000,
    "post_nms_test": 1000,
    "min_proposal_size": 0.0,
    "rpn_nms_iou": 0.7,
    "sampling_ratio": 0,
    "aligned": True,
    "score_threshold": 0.05,
    "nms_iou": 0.5,
    "min_detection_size": 0.0,
    "max_detections": 100,
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


def read(path: str, found: Mapping[str, np.ndarray], author: str = "") -> Checkpoint:
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
    found = {name: value for name, value in found.items() if not name.endswith(".num_batches_tracked")}
    if any(name.startswith("backbone.bottom_up.") for name in found):
        return _detector(path, found)
    if any(name.startswith(("backbone.", "roi_heads.", "proposal_generator.")) for name in found):
        raise ValueError(
            f"{path}: must be a Faster R-CNN with FPN, got a detectron2 detector without a pyramid (DC5 or C4): not supported"
        )
    notes = tuple(
        f"left out the classifier: {name}" for name in found if name.startswith(("stem.fc.", "fc.", "linear."))
    )
    found = {name: value for name, value in found.items() if not name.startswith(("stem.fc.", "fc.", "linear."))}
    backbone = backbone_of(path, found, BLOCK)
    require_plain(path, found, "stem.conv1.weight", "res2.0.conv2.weight")
    tensors = convert(path, found, pytorch_entries(backbone, detectron2_naming))
    from_torchvision = author == "torchvision"
    settings = TORCHVISION_BACKBONE if from_torchvision else BACKBONE
    model = {**settings, "backbone": backbone, "backbone_width": tensors["stem_conv/kernel"].shape[0]}
    if not from_torchvision:
        tensors = flip_channels(tensors)
    return Checkpoint(path, f"detectron2 {backbone}, ImageNet", model, {}, tensors, notes=notes)


def read_caffe2(path: str, found: Mapping[str, np.ndarray]) -> Checkpoint:
    """Understands MSRA's ImageNet ResNets (`R-50.pkl`, `R-101.pkl`): BGR, norms reduced to scale and bias.

    Raises:
        ValueError: if tensors are missing or left over.
    """
    # detectron2 reads neither the classifier nor the bias of the stem.
    skipped = [name for name in found if re.match(r"(fc1000|pred|conv1)_[wb]$", name) and name != "conv1_w"]
    skipped += [name for name in found if name.endswith("_momentum")]
    entries = []
    found = {name: value for name, value in found.items() if name not in skipped}
    backbone = backbone_of(path, found, CAFFE2_BLOCK)
    for unit in units(backbone):
        conv, norm = caffe2_naming(unit)
        entries.append(Entry(f"{unit.name}_conv/kernel", (f"{conv}_w",), "conv"))
        entries += [Entry(f"{unit.name}_norm/gamma", (f"{norm}_s",)), Entry(f"{unit.name}_norm/beta", (f"{norm}_b",))]
        # detectron2's FrozenBatchNorm2d: mean 0 and variance 1 where a file has none.
        entries.append(Entry(f"{unit.name}_norm/moving_mean", (f"{norm}_rm",), default=0.0))
        entries.append(Entry(f"{unit.name}_norm/moving_variance", (f"{norm}_riv",), default=1.0))
    tensors = {key: _filled(key, tensor, found) for key, tensor in convert(path, found, entries).items()}
    model = {**BACKBONE, "backbone": backbone, "backbone_width": tensors["stem_conv/kernel"].shape[0]}
    notes = (f"left out, as detectron2 does: {', '.join(skipped)}",) if skipped else ()
    return Checkpoint(path, f"Caffe2 (MSRA) {backbone}, ImageNet", model, {}, flip_channels(tensors), notes=notes)


def _filled(key: str, tensor: Tensor, found: Mapping[str, np.ndarray]) -> Tensor:
    if tensor.name in found:
        return tensor
    like = np.shape(found[re.sub(r"_r(m|iv)$", "_s", tensor.name)])
    return tensor._replace(value=np.full(like, tensor.value, np.float32), shape=like)


def _detector(path: str, found: Mapping[str, np.ndarray]) -> Checkpoint:
    buffers = {name: value for name, value in found.items() if name in PIXELS or name.startswith(ANCHORS)}
    found = {name: value for name, value in found.items() if name not in buffers}
    backbone = backbone_of(path, found, BLOCK)
    prefix = "backbone.bottom_up."
    require_plain(path, found, f"{prefix}stem.conv1.weight", f"{prefix}res2.0.conv2.weight")
    entries = pytorch_entries(backbone, detectron2_naming, prefix)
    for level in range(2, 6):
        entries += layer_entries(f"lateral_{level}", (f"backbone.fpn_lateral{level}",), "conv")
        entries += layer_entries(f"output_{level}", (f"backbone.fpn_output{level}",), "conv")
    entries += layer_entries("rpn_conv", ("proposal_generator.rpn_head.conv",), "conv")
    entries += layer_entries("rpn_logits", ("proposal_generator.rpn_head.objectness_logits",), "conv")
    entries += layer_entries("rpn_deltas", ("proposal_generator.rpn_head.anchor_deltas",), "conv")
    entries += layer_entries("head_fc1", ("roi_heads.box_head.fc1",), "roi_dense")
    entries += layer_entries("head_fc2", ("roi_heads.box_head.fc2",), "dense")
    entries += layer_entries("head_logits", ("roi_heads.box_predictor.cls_score",), "dense")
    entries += layer_entries("head_deltas", ("roi_heads.box_predictor.bbox_pred",), "dense")
    channels = np.size(found.get("backbone.fpn_output2.bias", ()))
    tensors = deltas_to_yxyx(convert(path, found, entries, channels))
    require_boxes_of_classes(path, tensors, background=False)
    classes = tensors["head_logits/bias"].value.size - 1
    pixels, bgr, notes = _pixels(path, buffers)
    anchors = {**DETECTOR, **_anchors(path, buffers)}
    model = {
        **BACKBONE, **pixels, **anchors, **detector_sizes(path, tensors, len(anchors["aspect_ratios"])),
        "backbone": backbone, "backbone_width": tensors["stem_conv/kernel"].shape[0], "num_classes": classes,
    }  # fmt: skip
    known = coco_classes(classes) if classes == 80 else (None, None)
    kind = f"detectron2 Faster R-CNN {backbone} FPN, {classes} classes"
    return Checkpoint(
        path, kind, model, SAMPLING, flip_channels(tensors) if bgr else tensors, known[0], known[1], notes
    )


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
