"""Defines the network's options: a frozen dataclass, checked when made, the section `model` of the configuration."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import tyro.conf

from kfpn.config.backbone_settings import check_backbone
from kfpn.config.checks import NOT_NEGATIVE, POSITIVE, SHARE, WHOLE_OR_NONE, check, is_int, one_of, positive, whole
from kfpn.config.field_types import require_types
from kfpn.config.segment_settings import check_segment_sizes, check_segments

Pyramid = Literal["fpn", "bottom_up", "top_down", "finest", "c4", "c5"]
Upsampling = Literal["nearest", "bilinear"]
Merge = Literal["sum", "average"]
Norm = Literal["frozen_bn", "bn", "sync_bn", "gn"]
AnchorStrides = Literal["level", "image"]
Padding = Literal["zero", "foreign"]
MaskClasses = Literal["each", "agnostic"]
Pasting = Literal["sampled", "resized"]
Task = Literal["detections", "segments"]
SegmentWindows = Literal["both", "5x5", "7x7"]

SINGLE_LEVEL: dict[str, tuple[str, ...]] = {"finest": ("P2",), "c4": ("C4",), "c5": ("C5",)}
"""Pyramid -> its level, for the pyramids that have only one."""

CASCADE = ("box", "box_2", "box_3")
"""The heads of a cascade, in the order in which they look at boxes."""
STAGE_IOUS = {2: 0.6, 3: 0.7}
"""Later stage of a cascade -> the IoU with an object from which on a box is positive there, and below which it is negative. The first has
`sampling.roi_positive_iou`."""

UNUSED_SETTINGS = {
    "bottom_up": ("upsampling", "merge"),
    "top_down": ("merge",),
    "finest": ("smooth_p5", "p6", "shared_rpn"),
    "c4": ("upsampling", "merge", "smooth_p5", "p6", "shared_rpn"),
    "c5": ("upsampling", "merge", "smooth_p5", "p6", "shared_rpn"),
}
"""Pyramid -> the settings that have no effect in it."""


def default_class_names(count: int) -> tuple[str, ...]:
    """Returns the names of labels that nobody has named: "class 1", "class 2" and so on."""
    return tuple(f"class {label + 1}" for label in range(count))


def named_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the labels of a detector as a tuple of text.

    Args:
        names: one for each label, in their order.

    Raises:
        ValueError: if it is one text, whose letters would be classes, or if a name is no text, is empty or comes twice.
    """
    if isinstance(names, str | Mapping):
        raise ValueError(f"class_names must be a list of names, got {names!r}: write a list, ['cat'] for one class")
    names = list(names)
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"class_names must be text, got {name!r}")
        if name in names[:index]:
            raise ValueError(f"class_names must be unique, got {name!r} more than once")
    return tuple(map(str, names))


def network_name(mask: bool, cascade: bool = False) -> str:
    """Returns what the field calls a detector with these heads: Faster R-CNN, Mask R-CNN, Cascade R-CNN or Cascade Mask R-CNN."""
    if cascade:
        return "Cascade Mask R-CNN" if mask else "Cascade R-CNN"
    return "Mask R-CNN" if mask else "Faster R-CNN"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network: backbone, pyramid, RPN, heads and final selection."""

    num_classes: int = 80
    """Object classes, background not counted. Training takes it from the data set."""
    backbone: str = "resnet50"
    """What gives C2-C5: resnet18, resnet26, resnet34, resnet50, resnet101 or resnet152 (He et al. 2016); keras:NAME of keras.applications,
    such as keras:efficientnetv2-b0; or the file of a Keras model, my_backbone.keras (docs/backbones.md)."""
    backbone_layers: str | None = None
    """With a Keras model as backbone: the layers that give C2, C3, C4 and C5, separated by commas. None: the last ones of strides 4, 8, 16
    and 32."""
    backbone_width: int = 64
    """Channels of the stem; every stage scales with it. 64 is the paper's."""
    stride_on: Literal["1x1", "3x3"] = "1x1"
    """Where a bottleneck strides: its first 1x1 (the paper, detectron2) or its 3x3 (torchvision)."""
    norm: Norm = "frozen_bn"
    """Normalisation of the backbone. frozen_bn needs pretrained weights; gn or bn train from scratch. A Keras model as backbone keeps its
    own norms: this says whether its batch norms train."""
    norm_epsilon: float = 1e-5
    """Added to the variance by the backbone's norms."""
    freeze_stages: int = 2
    """Stages that do not train, from below: 0 none, 1 the stem, 2 the stem and conv2_x ... 5 all."""
    pyramid: Annotated[Pyramid, tyro.conf.arg(aliases=("--pyramid",))] = "fpn"
    """The row of the paper's tables 1 to 3: fpn (c) | bottom_up (d: laterals and 3x3, no top-down path) | top_down (e: no
    laterals) | finest (f: P2 alone, with all anchor sizes) | c4 (a: conv4 alone, conv5 is the box head) | c5 (b: conv5 alone)."""
    upsampling: Upsampling = "nearest"
    """How the top-down path enlarges a map: nearest (the paper) or bilinear, to the size of the finer one."""
    merge: Merge = "sum"
    """How an enlarged map and a lateral are merged: their sum (the paper) or their average."""
    smooth_p5: bool = True
    """P5 has a 3x3 convolution like the other levels; without, P5 is the lateral of C5."""
    p6: bool = True
    """The RPN has a level P6, which is every second cell of P5."""
    pyramid_channels: int = 256
    """Channels of P2-P6."""
    shared_rpn: bool = True
    """One RPN head for all levels (the paper), or one for each level."""
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side in pixels of the square anchor of P2, P3, P4, P5, P6. The pyramids of one level have all sizes on it. With task segments:
    the larger side of the objects that each level is for."""
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height / width of the anchors of a cell."""
    round_anchors: bool = False
    """Round half the anchors' sides to whole pixels (torchvision)."""
    anchor_strides: AnchorStrides = "level"
    """Distance of anchors. level: the level's stride. image: the image's side, padded to a multiple of 32, divided by its cells
    and rounded down (torchvision; 59 or 61 instead of 64 on P6)."""
    padding: Padding = "zero"
    """The padding below and right of an image, behind the first layer. zero: it is set to zero at every layer, and an image gives
    what it gives alone. foreign: it is left as it comes, as torchvision and detectron2 do; it changes the image's border."""
    pre_nms_train: int = 2000
    """Proposals a level that enter NMS in training; where a single level has all anchor sizes, so many for each size."""
    pre_nms_test: int = 1000
    """The same at inference."""
    post_nms_train: int = 2000
    """Proposals an image after NMS, all levels together, in training."""
    post_nms_test: int = 1000
    """Proposals an image after NMS, all levels together, at inference."""
    rpn_nms_iou: float = 0.7
    """A proposal that overlaps a better one of its level by more than this IoU is dropped."""
    min_proposal_size: float = 0.0
    """Proposals with a side shorter than this, in pixels, are dropped (torchvision: 1e-3); empty ones always are."""
    roi_size: int = 7
    """Cells of the square RoIAlign output, a side; c4 pools twice as many, and its head halves them."""
    sampling_ratio: int = 2
    """RoIAlign samples a cell, a side; 0: the cell's side in cells of its level, rounded up (detectron2)."""
    aligned: bool = True
    """RoIAlign with the half-pixel shift (detectron2) or without (torchvision)."""
    canonical_size: float = 224.0
    """Side in pixels of the square RoI that is pooled from P4; half of it from P3, and so on (FPN, equation 1)."""
    head_width: int = 1024
    """Units of the two fully connected layers of the box head."""
    cascade: bool = False
    """Three box heads, each on the boxes that the one before has moved, for tighter boxes (Cascade R-CNN, Cai & Vasconcelos 2018): matched
    by IoU .5, .6 and .7; detections have the mean of their scores and the boxes of the last."""
    norm_heads: bool = False
    """Normalise the pyramid (gn) and the box head (layer norm) as well; training from scratch needs it."""
    score_threshold: float = 0.05
    """Detections at or below this score are dropped."""
    nms_iou: float = 0.5
    """A detection that overlaps a better one of its class by more than this IoU is dropped."""
    max_detections: int = 100
    """Detections an image at most."""
    min_detection_size: float = 0.0
    """Detections with a side shorter than this, in pixels, are dropped before NMS (torchvision: 0.01)."""
    mask: Annotated[bool, tyro.conf.arg(aliases=("--mask",))] = False
    """Instance segmentation: a mask of each detection as well (Mask R-CNN, He et al. 2017). The training data must have masks."""
    mask_classes: MaskClasses = "each"
    """The mask head gives a mask for each class (the paper), or one for all: agnostic."""
    mask_channels: int | None = None
    """Channels of the mask head's convolutions. None: as many as the pyramid has (256 in the paper)."""
    pasting: Pasting = "sampled"
    """How a mask is put into its image. sampled: each pixel's centre takes its value of the 28 x 28 cells (detectron2). resized: the
    cells, with a ring of zeros, are enlarged to whole pixels (torchvision)."""
    task: Annotated[Task, tyro.conf.arg(aliases=("--task",))] = "detections"
    """What the network gives: detections, or segments: masks of whatever looks like an object, without classes (FPN, section 6;
    docs/segments.md). The training data must have masks for segments, whose windows follow `anchor_sizes`; pyramid c4 has one of them."""
    segment_windows: SegmentWindows = "both"
    """The windows that segments are proposed from: 5x5 cells of a level, 7x7 cells for objects larger by the root of 2, or both."""
    segment_side: int = 14
    """Cells of a segment's mask, a side; 28 is the doubled resolution of the paper's table 6."""
    segment_width: int = 512
    """Units of the hidden layer that looks at a window."""
    max_segments: int = 1000
    """Segments an image: those of the best scores of all levels, without NMS."""
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Subtracted from R, G, B (0-255)."""
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Divides R, G, B after the mean is subtracted."""

    def __post_init__(self) -> None:
        require_types(self, "model.")
        counts = "num_classes backbone_width pyramid_channels pre_nms_train pre_nms_test post_nms_train post_nms_test"
        check(self, "model.", f"{counts} roi_size head_width max_detections", whole(1))
        check(self, "model.", "mask_channels", WHOLE_OR_NONE)
        check(self, "model.", "sampling_ratio", whole(0))
        check_backbone(self)
        check(self, "model.", "norm", one_of(Norm))
        check(self, "model.", "stride_on", ("be '1x1' or '3x3'", lambda v: v in ("1x1", "3x3")))
        check(self, "model.", "freeze_stages", ("be 0, 1, 2, 3, 4 or 5", lambda v: is_int(v) and 0 <= v <= 5))
        check(self, "model.", "anchor_strides", one_of(AnchorStrides))
        check(self, "model.", "padding", one_of(Padding))
        check(self, "model.", "mask_classes", one_of(MaskClasses))
        check(self, "model.", "pasting", one_of(Pasting))
        check_segments(self)
        check(self, "model.", "canonical_size", POSITIVE)
        check(self, "model.", "norm_epsilon min_proposal_size min_detection_size", NOT_NEGATIVE)
        self._check_pyramid()
        check_segment_sizes(self)
        if self.cascade and self.pyramid == "c4":
            raise ValueError(
                "model.cascade must be off with pyramid c4, got both: the box head of c4 is the last stage of the backbone, and there is one "
                "of it; take pyramid fpn"
            )
        check(self, "model.", "aspect_ratios", ("be positive numbers", lambda v: v and all(map(positive, v))))
        check(self, "model.", "rpn_nms_iou nms_iou score_threshold", SHARE)
        check(self, "model.", "pixel_mean", ("be three numbers (R, G, B)", lambda v: len(v) == 3))
        three = ("be three positive numbers (R, G, B)", lambda v: len(v) == 3 and all(map(positive, v)))
        check(self, "model.", "pixel_std", three)
        groups = ("be a multiple of 32 with norm gn (32 groups)", lambda v: self.norm != "gn" or v % 32 == 0)
        check(self, "model.", "backbone_width", groups)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that the RPN looks at, the finest first: P2 to P6, or the only one that `pyramid` has."""
        return SINGLE_LEVEL.get(self.pyramid) or ("P2", "P3", "P4", "P5", "P6")[: 5 if self.p6 else 4]

    @property
    def learns_masks(self) -> bool:
        """Whether the training data must have masks: for a mask head, or for segments."""
        return self.mask or self.task == "segments"

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that look at RoIs: those of `kfpn.modeling.heads`, with their losses in `kfpn.losses`."""
        return (*(CASCADE if self.cascade else CASCADE[:1]), *(("mask",) if self.mask else ()))

    def _check_pyramid(self) -> None:
        check(self, "model.", "pyramid", one_of(Pyramid))
        check(self, "model.", "upsampling", one_of(Upsampling))
        check(self, "model.", "merge", one_of(Merge))
        fields = {field.name: field for field in dataclasses.fields(self)}
        for name in UNUSED_SETTINGS.get(self.pyramid, ()):
            default = fields[name].default
            if getattr(self, name) != default:
                raise ValueError(
                    f"model.{name} must be {default!r} with pyramid {self.pyramid}, which has no use for it"
                )
        count = len(self.levels)
        names = f"{count} positive numbers, for {self.levels[0]} to {self.levels[-1]}"
        says = f"be {names}" if count > 1 else "be positive numbers"
        fits = lambda v: all(map(positive, v)) and (len(v) == count if count > 1 else len(v) > 0)  # noqa: E731
        check(self, "model.", "anchor_sizes", (says, fits))
