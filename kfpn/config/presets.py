"""Lists the presets: the defaults that all other options start from."""

from typing import Any

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, InputConfig, OptimizerConfig, SamplingConfig

BILINEAR_PYRAMID: dict[str, Any] = {
    "upsampling": "bilinear",
    "smooth_p5": False,
    "p6": False,
    "anchor_sizes": (32.0, 64.0, 128.0, 256.0),
    "stride_on": "3x3",
}
"""Settings of `ModelConfig` for the pyramid of a PyTorch FPN that is widely copied: bilinear upsampling to the lateral's size,
P5 without its 3x3, and no P6. Use them as `build_detector(**BILINEAR_PYRAMID)`, or by the preset `bilinear`."""

PRESETS: dict[str, Config] = {
    "coco": Config(),
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
            pre_nms_train=300,
            pre_nms_test=300,
            post_nms_train=300,
            post_nms_test=200,
        ),
        input=InputConfig(short_side=128, long_side=128),
        sampling=SamplingConfig(rpn_batch=128, roi_batch=64, roi_positive_fraction=0.5, roi_box_beta=1.0 / 9.0),
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
        name: `shapes` (minutes on a CPU), `coco` (the 1x recipe), `finetune` (for use with `init`) or `bilinear`.

    Raises:
        ValueError: for any other name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
