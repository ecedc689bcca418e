"""Lists the presets by name with what each is: the table that the option, its help and its errors are made of."""

from typing import TYPE_CHECKING, Literal

PRESET_MEANINGS = {
    "auto": "chosen from the data, the machine and the weights, each choice said with its reason (docs/own_data.md); what is taken with --data",
    "shapes": "the built-in data set, minutes on a CPU; what is taken without --preset and --data",
    "finetune": "some hundreds to thousands of images of your own, from trained weights; what is taken with --init alone",
    "paper": "the FPN paper's Faster R-CNN: section 5.2, and the authors' code Detectron where the text says nothing",
    "detectron2_1x": "detectron2's faster_rcnn_R_50_FPN_1x (with detectron2 itself its box AP on COCO is 37.9)",
    "detectron2_3x": "detectron2's faster_rcnn_R_50_FPN_3x (with detectron2 itself: 40.2)",
    "torchvision": "torchvision's recipe for fasterrcnn_resnet50_fpn (with torchvision itself: 37.0)",
    "bilinear": "a widely copied PyTorch FPN: bilinear, P5 not smoothed, no P6; for the rest as coco",
    "coco": "the 1x schedule with settings of kfpn's own, which are neither detectron2's nor the paper's; it is removed in 0.3.0",
}
"""Preset -> what it is, for people."""

PRESET_HELP = "\n".join(
    [
        "The defaults that all other options start from (docs/presets.md). Those for COCO want --init.",
        *(f"{name}: {meaning}." for name, meaning in PRESET_MEANINGS.items()),
    ]
)
"""The help of the option."""

_NAMES = tuple(PRESET_MEANINGS)

if TYPE_CHECKING:
    PresetName = str
else:
    PresetName = Literal[_NAMES]
