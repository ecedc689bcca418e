"""Reads torchvision's `fasterrcnn_resnet*_fpn` and `maskrcnn_resnet*_fpn` detectors and its ImageNet ResNets."""

from kfpn.weights.makers.coco_classes import coco_classes
from kfpn.weights.makers.detector_layout import COMMON_SETTINGS, detector_entries, to_kfpn_layout
from kfpn.weights.makers.foreign_arrays import ForeignArrays
from kfpn.weights.makers.resnet_names import PyTorchNames, read_pytorch, torchvision_naming
from kfpn.weights.makers.trained_weights import TrainedWeights

BLOCK = r"(backbone\.body\.)?layer(?P<stage>\d+)\.(?P<block>\d+)\.conv(?P<part>\d)\.weight$"

# torchvision.models.resnet, and the image transforms that its weights name.
BACKBONE = {
    "stride_on": "3x3",
    "norm_epsilon": 1e-5,
    "pixel_mean": (123.675, 116.28, 103.53),
    "pixel_std": (58.395, 57.12, 57.375),
}

# The defaults of FasterRCNN in torchvision.models.detection.faster_rcnn.
DETECTOR = {
    **COMMON_SETTINGS,
    "round_anchors": True,
    "anchor_strides": "image",
    "post_nms_train": 2000,
    "min_proposal_size": 1e-3,
    "sampling_ratio": 2,
    "aligned": False,
    "min_detection_size": 0.01,
    "pasting": "resized",
}
SAMPLING = {"rpn_box_beta": 1 / 9, "roi_box_beta": 1 / 9}

DETECTOR_NAMES: dict[str, tuple[str, ...]] = {
    # Since version 0.13 each convolution stands in a block of its own, which adds ".0" to its name.
    **{
        f"{ours}_{i + 2}": (f"backbone.fpn.{theirs}.{i}.0", f"backbone.fpn.{theirs}.{i}")
        for i in range(4)
        for ours, theirs in (("lateral", "inner_blocks"), ("output", "layer_blocks"))
    },
    "rpn_conv": ("rpn.head.conv.0.0", "rpn.head.conv"),
    "rpn_logits": ("rpn.head.cls_logits",),
    "rpn_deltas": ("rpn.head.bbox_pred",),
    "head_fc1": ("roi_heads.box_head.fc6",),
    "head_fc2": ("roi_heads.box_head.fc7",),
    "head_logits": ("roi_heads.box_predictor.cls_score",),
    "head_deltas": ("roi_heads.box_predictor.bbox_pred",),
    **{f"mask_conv{i + 1}": (f"roi_heads.mask_head.{i}.0", f"roi_heads.mask_head.mask_fcn{i + 1}") for i in range(4)},
    "mask_deconv": ("roi_heads.mask_predictor.conv5_mask",),
    "mask_logits": ("roi_heads.mask_predictor.mask_fcn_logits",),
}
"""kfpn's layer -> torchvision's names for it, newest first."""

UNSUPPORTED = {
    "backbone.body.0.0.weight": "a MobileNet backbone",
    "roi_heads.keypoint_head": "Keypoint R-CNN",
    "head.classification_head": "RetinaNet, FCOS or SSD",
    "backbone.fpn.inner_blocks.0.1.weight": "fasterrcnn_resnet50_fpn_v2 (norms in the pyramid, another box head)",
    "roi_heads.box_head.0.0.weight": "fasterrcnn_resnet50_fpn_v2 (another box head)",
}
"""The begin of an array's name -> the network of torchvision's that has it and that kfpn does not have."""


def is_torchvision(foreign: ForeignArrays) -> bool:
    """Tells whether arrays have the names of one of torchvision's detectors or ResNets."""
    resnet = {"conv1.weight", "layer1.0.conv1.weight"} <= foreign.arrays.keys()
    return resnet or foreign.has("backbone.body.conv1.weight", "backbone.body.0.0.weight", "head.classification_head")


def read(foreign: ForeignArrays) -> TrainedWeights:
    """Reads the state_dict of a torchvision detector or ResNet.

    Args:
        foreign: all arrays of the file.

    Raises:
        ValueError: if it is another network, or tensors are missing or left over.
    """
    for start, network in UNSUPPORTED.items():
        if foreign.has(start):
            raise ValueError(
                f"{foreign.path}: must be a fasterrcnn or maskrcnn_resnet18..152_fpn or a ResNet of torchvision's, got {network}: not supported"
            )
    # BatchNorm2d counts its batches and a frozen norm does not. Inference does not need the counters.
    foreign, counters = foreign.drop_matching(r".*\.num_batches_tracked$")
    if "backbone.body.conv1.weight" in foreign.arrays:
        return _torchvision_detector(foreign, frozen=not counters)
    foreign, classifier = foreign.drop_matching(r"fc\.(weight|bias)$")
    tensors, model = read_pytorch(foreign, PyTorchNames(BLOCK, torchvision_naming), BACKBONE)
    kind = f"torchvision {model['backbone']}, ImageNet"
    notes = tuple(f"left out the classifier: {name}" for name in ("fc.weight", "fc.bias") if name in classifier)
    return TrainedWeights(foreign.path, kind, model, {}, tensors, notes=notes)


def _torchvision_detector(foreign: ForeignArrays, frozen: bool) -> TrainedWeights:
    names = PyTorchNames(BLOCK, torchvision_naming, "backbone.body.")
    mask = foreign.has("roi_heads.mask_head.", "roi_heads.mask_predictor.")
    tensors, backbone = read_pytorch(foreign, names, BACKBONE, detector_entries(DETECTOR_NAMES, mask))
    ratios = len(COMMON_SETTINGS["aspect_ratios"])
    tensors, sizes = to_kfpn_layout(foreign.path, tensors, ratios, background_first=True)
    model, classes = {**backbone, **DETECTOR, **sizes}, sizes["num_classes"]
    notes: tuple[str, ...] = ()
    if frozen and "rpn.head.conv.weight" in foreign.arrays:
        # torchvision sets the epsilon of fasterrcnn_resnet50_fpn to 0 when it loads its weights COCO_V1
        # (overwrite_eps), so the same epsilon goes with what was fine-tuned from them.
        model["norm_epsilon"] = 0.0
        notes = (
            "written by a torchvision before 0.13: norm_epsilon 0, as its COCO weights have it. If yours were not "
            "trained from those, say --model.norm-epsilon 1e-5",
        )
    class_names, category_ids = coco_classes(classes) if classes == 90 else (None, None)
    kind = f"torchvision {'Mask' if mask else 'Faster'} R-CNN {model['backbone']} FPN, {classes} classes"
    sampling = {**SAMPLING, "mask_targets": "soft"} if mask else SAMPLING
    return TrainedWeights(foreign.path, kind, model, sampling, tensors, class_names, category_ids, notes)
