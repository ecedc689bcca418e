"""Checks that options which a run has no use for are not given: those about masks without masks, and those of another task."""

from collections.abc import Iterable

from kfpn.config.auto_draft import as_option
from kfpn.config.run import Config

OF_MASKS = (
    "model.mask_channels",
    "model.mask_classes",
    "model.pasting",
    "sampling.mask_batch",
    "sampling.mask_targets",
)
"""Options that have no effect without masks. (`input.copy_paste` is refused by `Config` itself.)"""

OF_SEGMENTS = (
    "model.segment_windows",
    "model.segment_side",
    "model.segment_width",
    "model.max_segments",
    "sampling.segment_batch",
    "sampling.segment_positive_fraction",
    "sampling.segment_mask_weight",
)
"""Options that have no effect without task segments."""

OF_DETECTORS = (
    "model.shared_rpn",
    "model.aspect_ratios",
    "model.round_anchors",
    "model.pre_nms_train",
    "model.pre_nms_test",
    "model.post_nms_train",
    "model.post_nms_test",
    "model.rpn_nms_iou",
    "model.min_proposal_size",
    "model.roi_size",
    "model.sampling_ratio",
    "model.aligned",
    "model.canonical_size",
    "model.head_width",
    "model.score_threshold",
    "model.nms_iou",
    "model.max_detections",
    "model.min_detection_size",
    "model.mask_classes",
    "model.mask_channels",
    "sampling.rpn_positive_iou",
    "sampling.rpn_negative_iou",
    "sampling.rpn_batch",
    "sampling.rpn_positive_fraction",
    "sampling.roi_positive_iou",
    "sampling.roi_batch",
    "sampling.roi_positive_fraction",
    "sampling.rpn_box_beta",
    "sampling.roi_box_beta",
    "sampling.mask_batch",
)
"""Options that have no effect with task segments. (`Config` and `ModelConfig` refuse others themselves.)"""


def require_used(given: Iterable[str], config: Config) -> None:
    """Checks that no option is given to a run in which it would do nothing.

    A preset, weights and the config.json of a run may have such settings: only what a person gave counts.

    Args:
        given: options by hand, as the fields of `Config` are called: "sampling.mask_batch".
        config: of the run.

    Raises:
        ValueError: naming the first such option.
    """
    segments = config.model.task == "segments"
    for name in given:
        if name in OF_DETECTORS and segments:
            raise ValueError(
                f"{name} must be left out with --task segments, got {_written(name, config)}: it is for detectors, and does nothing here"
            )
        if name in OF_SEGMENTS and not segments:
            raise ValueError(
                f"{name} must be given with --task segments, got {_written(name, config)} without it: add --task segments to learn "
                "segments, or leave it out"
            )
        if name in OF_MASKS and not config.model.learns_masks:
            raise ValueError(
                f"{name} must be given with --mask, got {_written(name, config)} without it: add --mask to learn masks, or leave it out"
            )


def _written(name: str, config: Config) -> str:
    """Returns an option of a section with its value, as it is written."""
    section, _, field = name.partition(".")
    return as_option(name, getattr(getattr(config, section), field))
