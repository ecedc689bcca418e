"""Holds the numbers of the rules of the preset `auto`, each with where it comes from; docs/own_data.md has the measurements."""

from typing import Any, NamedTuple

# Input size, in pixels of the short side.
SIDE_STEP = 32
"""Sizes are multiples of it: the stride of C5."""
LEAST_SIDE, MOST_SIDE = 128, 800
"""128: the preset shapes. 800: the paper, section 5."""
CPU_SEEN, GPU_SEEN = (16.0, 48.0), (24.0, 96.0)
"""Sides that four fifths and half of the objects should have at least, on a CPU and on a GPU, where pixels cost less. 16 is four
cells of P2, 48 lies between the paper's anchors of P2 and P3. First values, not measured."""
SMALL_QUANTILE = 0.2
CPU_SIDES = ((1, 320), (8, 416), (16, 512))
"""From so many cores on -> most pixels on a CPU. A first value, not measured."""
CPU_SIDES_OF_SMALL = ((1, 448), (8, 544), (16, 640))
"""The same where more than a fifth of the objects would be smaller than `CPU_SEEN` says. A first value, not measured."""
GPU_SIDES = ((0, 512), (10, 640), (20, 800))
"""From so many GiB on -> most pixels on a GPU. A first value, not measured."""
LONG_QUANTILE, MOST_LONG = 0.95, 2.0
"""The long side holds this share of the images uncut, but at most so many times the short side."""

# Anchors.
LONG_OBJECT = 3.0
"""An object is long when one side has more than so many times the other's length: anchors of 1:2 overlap it by .67 at most."""
LONG_SHARE = 0.25
"""From this share of long objects on there are anchors of 1:4 and 4:1 too. A first value, not measured."""
RATIOS, MORE_RATIOS = (0.5, 1.0, 2.0), (0.25, 0.5, 1.0, 2.0, 4.0)
"""The paper's, and those for long objects."""
CANONICAL = 1.75
"""canonical_size is so many times the anchor of P4: 224 / 128 in the paper, 75 / 40 in the preset shapes."""

# Segments.
SIZE_QUANTILE = 0.1
"""The size of the finest level is the larger side that this share of the objects is below; each further level has twice the size."""
LEAST_SIZE, MOST_SIZE = 8.0, 32.0
"""Sizes of the finest level, in pixels: two of its cells, and the paper's."""
RATES_OF_SEGMENTS = {4: 0.2, 16: 0.03}
"""Reference batch of a network -> learning rate: that of the preset shapes with task segments, and the paper's (appendix B)."""

# Batch.
CPU_BATCH = 4
"""The preset shapes: batch norm needs several images, and the number of steps counts most."""
GPU_BYTES_A_PIXEL = 4000.0
"""Memory of training the large network, for a pixel of its input. A first value, not measured."""
GPU_SHARE = 0.8
"""Of the memory is used for images."""
UNKNOWN_MEMORY = 8 * 2**30
"""Bytes, where a GPU does not say how much it has."""
MOST_OF_GPU = 16
"""Most images of a GPU at once: more take longer for a step and win nothing in the end. A first value, not measured."""

# Detections and proposals.
LEAST_DETECTIONS = 100
"""COCO's number, and the least."""
DETECTIONS_OF_FULLEST = 1.5
"""Detections at most, in numbers of objects of the fullest image."""
PROPOSALS_OF_DETECTIONS = 2
"""Proposals after NMS at least, in detections at most."""
ROIS_OF_OBJECTS = 4
"""RoIs an image in the loss at least, in objects of the median image: with half of them positive each object has two."""
MOST_ROIS = 512
"""The paper's."""

# Rare classes.
RARE = 0.25
"""A class is rare if the share of images that have it is below this factor times the median class's share. That product is then the
threshold by which images of rare classes are taken more often. A first value, not measured."""

# A detector's weights on a CPU.
CPU_SIDES_OF_DETECTORS = (320, 416, 512, 640)
"""Short sides that are tried, from the smallest: each costs 1.5 to 1.7 times the one before."""
LOST_OVERLAP = 0.02
"""Mean IoU of objects with the weights' best anchors that a smaller input may cost. A first value, not measured."""

# Schedule.
EVALUATIONS = 6
"""Evaluations of a run."""
LEAST_BETWEEN, MOST_BETWEEN = 100, 5000
"""Steps between them."""
CHECKPOINTS = 20
"""Checkpoints of a run, but never more than `MOST_BETWEEN_CHECKPOINTS` steps apart."""
MOST_BETWEEN_CHECKPOINTS = 1000
WARMUP = 0.03
"""Share of the steps: 100 of 3300 in the preset shapes."""
LEAST_WARMUP, MOST_WARMUP = 10, 1000
EMA_SPAN = 0.03
"""Share of the steps over which weights are averaged: 1 / (1 - .99) of 3300 in the preset shapes."""
LEAST_EMA, MOST_EMA = 0.9, 0.9998
MINUTES_STEPS = 3000
"""Steps by which warm-up, average and evaluations are set where --minutes decides how many there are."""


class Network(NamedTuple):
    """A row of the table of networks: what a run trains, and with which losses and schedule.

    Attributes:
        why: in words, when it is taken.
        settings: option -> value.
        epochs: passes over the images, which give the steps.
        steps: the least and the most steps.
    """

    why: str
    settings: dict[str, Any]
    epochs: float
    steps: tuple[int, int]


SHIPPED = "kfpn:small"
"""Weights in the package: the network of `SMALL`, trained on the made pictures of `shapes` (benchmarks/ship_weights.py). docs/own_data.md says what
they gain."""
SHIPPED_NETWORK = {
    "model.backbone": "resnet18",
    "model.backbone_width": 32,
    "model.stride_on": "1x1",
    "model.norm": "bn",
    "model.pyramid": "fpn",
    "model.upsampling": "nearest",
    "model.merge": "sum",
    "model.smooth_p5": True,
    "model.p6": True,
    "model.pyramid_channels": 64,
    "model.shared_rpn": True,
    "model.aspect_ratios": (0.5, 1.0, 2.0),
    "model.roi_size": 7,
    "model.head_width": 256,
    "model.norm_heads": True,
    "model.pixel_mean": (123.675, 116.28, 103.53),
    "model.pixel_std": (58.395, 57.12, 57.375),
}
"""What a network must have for these weights."""
SMALL = Network(
    "a small network takes many steps in little time on a CPU",
    {  # the preset shapes
        "model.backbone": "resnet18",
        "model.backbone_width": 32,
        "model.freeze_stages": 0,
        "model.pyramid_channels": 64,
        "model.head_width": 256,
        "model.mask_channels": 32,
        "model.norm_heads": True,
        "model.pre_nms_train": 300,
        "model.pre_nms_test": 300,
        "model.post_nms_train": 300,
        "model.post_nms_test": 200,
        "sampling.rpn_batch": 128,
        "sampling.roi_batch": 64,
        "sampling.roi_positive_fraction": 0.5,
        "sampling.mask_batch": 32,
        "sampling.roi_box_beta": 1.0 / 9.0,
        "optimizer.learning_rate": 0.1,
        "optimizer.reference_batch": 4,
        "optimizer.schedule": "cosine",
        "optimizer.clip_norm": 5.0,
    },
    epochs=24.0,
    steps=(3000, 20_000),
)
LARGE = Network(
    "random weights on a GPU: the paper's network, with norms that train",
    {  # the widths are the paper's; norms and heads as in He et al. 2019, "Rethinking ImageNet Pre-training"
        "model.backbone": "resnet50",
        "model.backbone_width": 64,
        "model.freeze_stages": 0,
        "model.pyramid_channels": 256,
        "model.head_width": 1024,
        "model.norm_heads": True,
        "sampling.roi_positive_fraction": 0.25,
        "optimizer.learning_rate": 0.02,
        "optimizer.reference_batch": 16,
        "optimizer.schedule": "cosine",
        "optimizer.clip_norm": 5.0,
    },
    epochs=72.0,
    steps=(5000, 270_000),
)
TRAINED = Network(
    "the network is that of the weights",
    {  # the preset finetune
        "optimizer.learning_rate": 0.02,
        "optimizer.reference_batch": 16,
        "optimizer.schedule": "step",
    },
    epochs=12.0,
    steps=(1000, 90_000),
)
