"""torchvision's `fasterrcnn_resnet*_fpn` detectors and its ImageNet ResNets."""

from collections.abc import Mapping

import numpy as np

from kfpn.weights.backbones import backbone_of, pytorch_entries, torchvision_naming
from kfpn.weights.checkpoint import Checkpoint, Tensor, convert, layer_entries
from kfpn.weights.coco import coco_classes

BLOCK = r"(backbone\.body\.)?layer(?P<stage>\d+)\.(?P<block>\d+)\.conv(?P<part>\d)\.weight$"

# torchvision.models.resnet and the transforms its weights name.
BACKBONE = {
    "stride_on": "3x3",
    "norm": "frozen_bn",
    "norm_epsilon": 1e-5,
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (58.395, 57.12, 57.375),
}

# torchvision.models.detection.faster_rcnn, the defaults of FasterRCNN.
DETECTOR = {
    "norm_heads": False,
    "canonical_size": 224.0,
    "anchor_sizes": (32.0, 64.0, 128.0, 256.0, 512.0),
    "aspect_ratios": (0.5, 1.0, 2.0),
    "round_anchors": True,
    "anchor_strides": "image",
    "pre_nms_train": 2000,
    "post_nms_train": 2000,
    "pre_nms_test": 1000,
    "post_nms_test": 1000,
    "min_proposal_size": 1e-3,
    "rpn_nms_iou": 0.7,
    "sampling_ratio": 2,
    "aligned": False,
    "score_threshold": 0.05,
    "nms_iou": 0.5,
    "min_detection_size": 0.01,
    "max_detections": 100,
}
SAMPLING = {"rpn_box_beta": 1 / 9, "roi_box_beta": 1 / 9}

# What other detectors of torchvision are known by.
OTHERS = {
    "backbone.body.0.0.weight": "a MobileNet backbone",
    "roi_heads.mask_head": "Mask R-CNN",
    "roi_heads.keypoint_head": "Keypoint R-CNN",
    "head.classification_head": "RetinaNet, FCOS or SSD",
    "backbone.fpn.inner_blocks.0.1.weight": "fasterrcnn_resnet50_fpn_v2 (norms in the pyramid, another box head)",
    "roi_heads.box_head.0.0.weight": "fasterrcnn_resnet50_fpn_v2 (another box head)",
}


def is_torchvision(names: Mapping[str, object]) -> bool:
    """Whether arrays are called as torchvision calls them."""
    return "backbone.body.conv1.weight" in names or {"conv1.weight", "layer1.0.conv1.weight"} <= set(names)


def is_other(names: Mapping[str, object]) -> str | None:
    """Returns which other detector of torchvision's it is, or None."""
    for start, what in OTHERS.items():
        if any(name.startswith(start) for name in names):
            return what
    return None


def read(path: str, found: Mapping[str, np.ndarray]) -> Checkpoint:
    """Understands the state_dict of a torchvision detector or ResNet.

    Args:
        path: the file, for messages.
        found: name -> array.

    Raises:
        ValueError: if it is another network, or tensors are missing or left over.
    """
    other = is_other(found)
    if other:
        raise ValueError(
            f"{path}: must be a fasterrcnn_resnet18..152_fpn or a ResNet of torchvision's, got {other}: not supported"
        )
    # BatchNorm2d counts its batches, a frozen one doesn't; nothing else reads it.
    frozen = not any(name.endswith(".num_batches_tracked") for name in found)
    found = {name: value for name, value in found.items() if not name.endswith(".num_batches_tracked")}
    if "backbone.body.conv1.weight" in found:
        return _detector(path, found, frozen)
    notes = tuple(f"left out the classifier: {name}" for name in ("fc.weight", "fc.bias") if name in found)
    found = {name: value for name, value in found.items() if name not in ("fc.weight", "fc.bias")}
    backbone = backbone_of(path, found, BLOCK)
    require_plain(path, found, "conv1.weight", "layer1.0.conv2.weight")
    tensors = convert(path, found, pytorch_entries(backbone, torchvision_naming))
    return Checkpoint(path, f"torchvision {backbone}, ImageNet", _backbone(backbone, tensors), {}, tensors, notes=notes)


def _detector(path: str, found: Mapping[str, np.ndarray], frozen: bool) -> Checkpoint:
    backbone = backbone_of(path, found, BLOCK)
    require_plain(path, found, "backbone.body.conv1.weight", "backbone.body.layer1.0.conv2.weight")
    entries = pytorch_entries(backbone, torchvision_naming, "backbone.body.")
    for i in range(4):
        for ours, theirs in (("lateral", "inner_blocks"), ("output", "layer_blocks")):
            # torchvision 0.13 put convolutions into blocks of their own.
            names = (f"backbone.fpn.{theirs}.{i}.0", f"backbone.fpn.{theirs}.{i}")
            entries += layer_entries(f"{ours}_{i + 2}", names, "conv")
    entries += layer_entries("rpn_conv", ("rpn.head.conv.0.0", "rpn.head.conv"), "conv")
    entries += layer_entries("rpn_logits", ("rpn.head.cls_logits",), "conv")
    entries += layer_entries("rpn_deltas", ("rpn.head.bbox_pred",), "conv")
    entries += layer_entries("head_fc1", ("roi_heads.box_head.fc6",), "roi_dense")
    entries += layer_entries("head_fc2", ("roi_heads.box_head.fc7",), "dense")
    entries += layer_entries("head_logits", ("roi_heads.box_predictor.cls_score",), "dense")
    entries += layer_entries("head_deltas", ("roi_heads.box_predictor.bbox_pred",), "dense")
    channels = np.size(
        found.get("backbone.fpn.layer_blocks.0.0.bias", found.get("backbone.fpn.layer_blocks.0.bias", ()))
    )
    tensors = deltas_to_yxyx(convert(path, found, entries, channels))
    require_boxes_of_classes(path, tensors, background=True)
    tensors, classes = _background_last(tensors)
    model = _backbone(backbone, tensors) | DETECTOR
    model |= detector_sizes(path, tensors) | {"num_classes": classes}
    notes: tuple[str, ...] = ()
    if frozen and "rpn.head.conv.weight" in found:
        # fasterrcnn_resnet50_fpn's COCO_V1 and what was fine-tuned from it: overwrite_eps(model, 0.0) in torchvision.
        model["norm_epsilon"] = 0.0
        notes = (
            "written by a torchvision before 0.13: norm_epsilon 0, as its COCO weights have it. If yours were not "
            "trained from those, say --model.norm-epsilon 1e-5",
        )
    known = coco_classes(classes) if classes == 90 else (None, None)
    kind = f"torchvision Faster R-CNN {backbone} FPN, {classes} classes"
    return Checkpoint(path, kind, model, SAMPLING, tensors, known[0], known[1], notes)


def _backbone(backbone: str, tensors: Mapping[str, Tensor]) -> dict:
    return {**BACKBONE, "backbone": backbone, "backbone_width": tensors["stem_conv/kernel"].shape[0]}


def require_plain(path: str, found: Mapping[str, np.ndarray], stem_name: str, conv_name: str) -> None:
    """Raises ValueError if a backbone's second convolution is grouped or wider than its stem."""
    stem, shape = (np.shape(found.get(name, ())) for name in (stem_name, conv_name))
    if len(shape) == 4 and len(stem) == 4 and (shape[1] != shape[0] or shape[0] != stem[0]):
        raise ValueError(
            f"{path}: the backbone must be a plain ResNet, got {conv_name} {shape}: ResNeXt and wide ResNets are not supported"
        )


def require_boxes_of_classes(path: str, tensors: Mapping[str, Tensor], background: bool) -> None:
    """Raises ValueError if a detector doesn't have a box for each class (the background's as well, or not)."""
    logits, deltas = (tensors[f"head_{name}/bias"] for name in ("logits", "deltas"))
    wanted = 4 * (logits.value.size - (0 if background else 1))
    if deltas.value.size != wanted:
        why = " (class-agnostic: one box for all classes is not supported)" if deltas.value.size in (4, 8) else ""
        raise ValueError(f"{path}: {deltas.name} must have {wanted} values, four a class, got {deltas.value.size}{why}")


def _background_last(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Moves the background from the first logit to the last and drops its deltas, which nothing reads."""
    classes = tensors["head_logits/bias"].value.size - 1
    moved = dict(tensors)
    for part in ("kernel", "bias"):
        logits, deltas = tensors[f"head_logits/{part}"], tensors[f"head_deltas/{part}"]
        moved[f"head_logits/{part}"] = logits._replace(value=np.roll(logits.value, -1, axis=-1))
        moved[f"head_deltas/{part}"] = deltas._replace(value=deltas.value[..., 4:])
    return moved, classes


def deltas_to_yxyx(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turns (dx, dy, dw, dh) into (dy, dx, dh, dw), anchor by anchor and class by class."""
    turned = dict(tensors)
    for key in ("rpn_deltas/kernel", "rpn_deltas/bias", "head_deltas/kernel", "head_deltas/bias"):
        value = tensors[key].value
        if value.shape[-1] % 4 == 0:
            quads = value.reshape(*value.shape[:-1], -1, 4)[..., [1, 0, 3, 2]]
            turned[key] = tensors[key]._replace(value=quads.reshape(value.shape))
    return turned


def detector_sizes(path: str, tensors: Mapping[str, Tensor], ratios: int = 3) -> dict:
    """Returns the fields of `ModelConfig` that a detector's shapes tell.

    Args:
        path: the file, for messages.
        tensors: of the detector.
        ratios: anchors a cell that are known.

    Raises:
        ValueError: if the shapes contradict one another, or the RPN has another number of anchors a cell.
    """
    channels = tensors["output_2/bias"].value.size
    fc1 = tensors["head_fc1/kernel"]
    cells = fc1.shape[-1] // channels if channels else 0
    side = round(cells**0.5)
    if len(fc1.shape) != 2 or side * side * channels != fc1.shape[-1]:
        raise ValueError(
            f"{path}: the box head must take square RoI features of the pyramid's {channels} channels, got {fc1.name} {fc1.shape}"
        )
    anchors = tensors["rpn_logits/bias"].value.size
    if anchors != ratios:
        raise ValueError(
            f"{path}: the RPN must have {ratios} anchors a cell, got {anchors}: the file does not say which, so it is not supported"
        )
    return {"pyramid_channels": channels, "head_width": tensors["head_fc2/bias"].value.size, "roi_size": side}
