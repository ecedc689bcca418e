"""Lists the presets: the defaults that all other options start from."""

import dataclasses
from typing import Any

from kfpn.config.model import ModelConfig
from kfpn.config.optimizer_config import OptimizerConfig
from kfpn.config.run import Config, InputConfig, SamplingConfig

BILINEAR_PYRAMID: dict[str, Any] = {
    "upsampling": "bilinear",
    "smooth_p5": False,
    "p6": False,
    "anchor_sizes": (32.0, 64.0, 128.0, 256.0),
    "stride_on": "3x3",
}
"""Settings of `ModelConfig` for the pyramid of a PyTorch FPN that is widely copied: bilinear upsampling to the lateral's size,
P5 without its 3x3, and no P6. Use them as `build_detector(**BILINEAR_PYRAMID)`, or by the preset `bilinear`."""

_EVALUATIONS = 10_000
"""Steps between evaluations. On eight GPUs they then take at most 8 % of the time of a 1x run, see docs/distributed.md."""
_DETECTRON2_SIDES = (640, 672, 704, 736, 768, 800)
_TORCHVISION_EPOCH = 7329
"""Steps of an epoch: 8 GPUs take ceil(117,266 / 8) images each, two a step, of the images of COCO train2017 with a box."""

# Where each number comes from stands in tests/config/preset_sources.py, with the file and the commit, and in docs/presets.md.
# Only what differs from the fields' own defaults stands here.
_PAPER = Config(
    workdir="runs/paper",
    preset="paper",
    steps=80_000,
    eval_every=_EVALUATIONS,
    model=ModelConfig(aligned=False),
    input=InputConfig(keep_empty=False),
    optimizer=OptimizerConfig(milestones=(0.75,), warmup_steps=500, warmup_factor=1.0 / 3.0),
)
_DETECTRON2 = Config(
    workdir="runs/detectron2_1x",
    preset="detectron2_1x",
    eval_every=_EVALUATIONS,
    model=ModelConfig(padding="foreign", post_nms_train=1000, sampling_ratio=0, pixel_std=(1.0, 1.0, 1.0)),
    input=InputConfig(train_short_sides=_DETECTRON2_SIDES, keep_empty=False),
    sampling=SamplingConfig(rpn_box_beta=0.0, roi_box_beta=0.0, mask_targets="polygons"),
    optimizer=OptimizerConfig(decay_biases=True),
)
_TORCHVISION = Config(
    workdir="runs/torchvision",
    preset="torchvision",
    steps=26 * _TORCHVISION_EPOCH,
    eval_every=_TORCHVISION_EPOCH,
    model=ModelConfig(
        stride_on="3x3",
        round_anchors=True,
        anchor_strides="image",
        padding="foreign",
        min_proposal_size=1e-3,
        aligned=False,
        min_detection_size=0.01,
        pasting="resized",
    ),
    input=InputConfig(keep_empty=False),
    sampling=SamplingConfig(rpn_box_beta=1.0 / 9.0, roi_box_beta=1.0 / 9.0, mask_targets="soft"),
    optimizer=OptimizerConfig(decay_biases=True, milestones=(16 / 26, 22 / 26)),
)

PRESETS: dict[str, Config] = {
    "coco": Config(),
    "paper": _PAPER,
    "detectron2_1x": _DETECTRON2,
    "detectron2_3x": dataclasses.replace(
        _DETECTRON2,
        workdir="runs/detectron2_3x",
        preset="detectron2_3x",
        steps=270_000,
        optimizer=dataclasses.replace(_DETECTRON2.optimizer, milestones=(21 / 27, 25 / 27)),
    ),
    "torchvision": _TORCHVISION,
    "bilinear": Config(workdir="runs/bilinear", preset="bilinear", model=ModelConfig(**BILINEAR_PYRAMID)),
    # It has the rates of the 1x recipe, for weights that are trained already and some hundreds to thousands of images.
    "finetune": Config(
        workdir="runs/finetune",
        preset="finetune",
        steps=3000,
        batch_size=4,
        eval_every=500,
        checkpoint_every=500,
        optimizer=OptimizerConfig(warmup_steps=200),
    ),
    # The scenes are small, so everything that the paper measures in pixels is scaled with them. This preset trains from
    # scratch in minutes, where the number of steps counts most: batches are small, all parts have norms, and many of the
    # sampled RoIs are positive.
    "shapes": Config(
        data="shapes",
        workdir="runs/shapes",
        preset="shapes",
        steps=3300,
        batch_size=4,
        eval_every=1650,
        checkpoint_every=500,
        log_every=50,
        model=ModelConfig(
            num_classes=5,
            backbone="resnet18",
            backbone_width=32,
            norm="bn",
            freeze_stages=0,
            pyramid_channels=64,
            norm_heads=True,
            anchor_sizes=(10.0, 20.0, 40.0, 80.0, 130.0),
            canonical_size=75.0,
            head_width=256,
            mask_channels=32,
            pre_nms_train=300,
            pre_nms_test=300,
            post_nms_train=300,
            post_nms_test=200,
        ),
        input=InputConfig(short_side=128, long_side=128),
        sampling=SamplingConfig(
            rpn_batch=128, roi_batch=64, roi_positive_fraction=0.5, roi_box_beta=1.0 / 9.0, mask_batch=8
        ),
        optimizer=OptimizerConfig(
            learning_rate=0.1,
            reference_batch=4,
            warmup_steps=100,
            schedule="cosine",
            clip_norm=5.0,
            ema_decay=0.99,
        ),
    ),
}


def preset(name: str) -> Config:
    """Returns the `Config` of a preset.

    Args:
        name: a key of `PRESETS`; `kfpn.config.preset_names.PRESET_MEANINGS` says what each is.

    Raises:
        ValueError: for any other name.
    """
    if name == "auto":
        raise ValueError(
            "preset must be one whose settings are fixed, got 'auto', which looks at data: use kfpn.auto_config(data)"
        )
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
