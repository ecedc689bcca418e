"""torchvision's `fasterrcnn_resnet*_fpn` detectors and its ImageNet ResNets."""

from collections.abc import Mapping

import numpy as np

from kfpn.weights.makers.coco_classes import coco_classes
from kfpn.weights.makers.detector_layout import STANDARD, detector_entries, understood
from kfpn.weights.makers.resnet_names import read_pytorch, torchvision_naming
from kfpn.weights.makers.trained_weights import TrainedWeights, without

BLOCK = r"(backbone\.body\.)?layer(?P<stage>\d+)\.(?P<block>\d+)\.conv(?P<part>\d)\.weight$"

# torchvision.models.resnet and the transforms its weights name.
BACKBONE = {
    "stride_on": "3x3",
    "norm_epsilon": 1e-5,
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (58.395, 57.12, 57.375),
}

# torchvision.models.detection.faster_rcnn, the defaults of FasterRCNN.
DETECTOR = {
    **STANDARD,
    "round_anchors": True,
    "anchor_strides": "image",
    "post_nms_train": 2000,
    "min_proposal_size": 1e-3,
    "sampling_ratio": 2,
    "aligned": False,
    "min_detection_size": 0.01,
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


def read(path: str, found: Mapping[str, np.ndarray]) -> TrainedWeights:
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
    found, counts = without(found, r".*\.num_batches_tracked$")
    if "backbone.body.conv1.weight" in found:
        return _detector(path, found, frozen=not counts)
    found, classifier = without(found, r"fc\.(weight|bias)$")
    tensors, model = read_pytorch(path, found, BLOCK, torchvision_naming, BACKBONE)
    kind = f"torchvision {model['backbone']}, ImageNet"
    notes = tuple(f"left out the classifier: {name}" for name in ("fc.weight", "fc.bias") if name in classifier)
    return TrainedWeights(path, kind, model, {}, tensors, notes=notes)


def _names() -> dict[str, tuple[str, ...]]:
    # torchvision 0.13 put convolutions into blocks of their own.
    pyramid = {
        f"{ours}_{i + 2}": (f"backbone.fpn.{theirs}.{i}.0", f"backbone.fpn.{theirs}.{i}")
        for i in range(4)
        for ours, theirs in (("lateral", "inner_blocks"), ("output", "layer_blocks"))
    }
    return {
        **pyramid,
        "rpn_conv": ("rpn.head.conv.0.0", "rpn.head.conv"),
        "rpn_logits": ("rpn.head.cls_logits",),
        "rpn_deltas": ("rpn.head.bbox_pred",),
        "head_fc1": ("roi_heads.box_head.fc6",),
        "head_fc2": ("roi_heads.box_head.fc7",),
        "head_logits": ("roi_heads.box_predictor.cls_score",),
        "head_deltas": ("roi_heads.box_predictor.bbox_pred",),
    }


def _detector(path: str, found: Mapping[str, np.ndarray], frozen: bool) -> TrainedWeights:
    tensors, backbone = read_pytorch(
        path, found, BLOCK, torchvision_naming, BACKBONE, "backbone.body.", detector_entries(_names())
    )
    tensors, sizes = understood(path, tensors, len(DETECTOR["aspect_ratios"]), background_first=True)
    model, classes = {**backbone, **DETECTOR, **sizes}, sizes["num_classes"]
    notes: tuple[str, ...] = ()
    if frozen and "rpn.head.conv.weight" in found:
        # fasterrcnn_resnet50_fpn's COCO_V1 and what was fine-tuned from it: overwrite_eps(model, 0.0) in torchvision.
        model["norm_epsilon"] = 0.0
        notes = (
            "written by a torchvision before 0.13: norm_epsilon 0, as its COCO weights have it. If yours were not "
            "trained from those, say --model.norm-epsilon 1e-5",
        )
    known = coco_classes(classes) if classes == 90 else (None, None)
    kind = f"torchvision Faster R-CNN {model['backbone']} FPN, {classes} classes"
    return TrainedWeights(path, kind, model, SAMPLING, tensors, known[0], known[1], notes)
