"""Tells which settings weights bring to the run that starts from them."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from kfpn.config.auto_facts import WeightFacts
from kfpn.config.model import ModelConfig, Task
from kfpn.config.segment_settings import PYRAMIDS_OF_SEGMENTS, SINGLE_LEVEL_OF_SEGMENTS
from kfpn.runs.workdir import WEIGHTS, Workdir

BACKBONE_FIELDS = (
    "backbone", "backbone_layers", "backbone_width", "stride_on", "norm", "norm_epsilon", "freeze_stages", "pixel_mean", "pixel_std",
)  # fmt: skip
"""Fields of `ModelConfig` that say what computes C2 to C5."""
PYRAMID_FIELDS = (
    "pyramid", "upsampling", "merge", "smooth_p5", "p6", "pyramid_channels", "norm_heads", "anchor_sizes",
)  # fmt: skip
"""Those that say what computes P2 to P6, and the sizes of objects that each is for."""


def settings_of_weights(init: str, workdir: str, task: Task = "detections") -> WeightFacts:
    """Returns the fields of the sections model, sampling and input that come with weights.

    Whether the run has masks is not among them: its data must have masks too, so a person says it (--mask).

    Args:
        init: the weights, as for `kfpn train --init`.
        workdir: of the run that starts from them. Once it has checkpoints, its own settings hold: the weights may be gone.
        task: of that run. Segments take from a detector what makes its backbone and its pyramid.

    Raises:
        ValueError: for weights that can't be read, and for those of segments where the run is of a detector.
    """
    weights = _all_settings(init, workdir, task)
    if task == "detections":
        return weights
    # The losses of a detector say nothing of those of segments.
    sampling = weights.sampling if weights.model.get("task") == "segments" else {}
    return dataclasses.replace(weights, model=fields_for_segments(weights.model), sampling=sampling)


def _all_settings(init: str, workdir: str, task: Task) -> WeightFacts:
    """Returns all fields that come with weights, see `settings_of_weights`, whatever the run has a use for."""
    run = Workdir(workdir)
    if not (run.has_checkpoints() and run.config.exists() and run.read_config().init == init):
        # A work directory tells its settings. To build its network here would start TensorFlow before its devices are chosen.
        run = Workdir(os.path.expanduser(init).removesuffix(WEIGHTS) or ".")
    if run.config.exists():
        config = run.read_config()
        if task == "detections" and config.model.task == "segments":
            raise ValueError(
                f"init must be weights of a detector, got {init}, which was trained with --task segments: add --task segments to go on "
                "with segments"
            )
        return WeightFacts(
            _without_mask(vars(config.model)), vars(config.sampling), vars(config.input), is_detector=True
        )
    from kfpn.weights.application_weights import brought_by_application, is_application

    if is_application(init):  # Its network, too, is not built before the devices are chosen.
        return WeightFacts(brought_by_application(init), {}, {}, is_detector=False)
    from kfpn.weights.identify import read_trained_weights

    trained = read_trained_weights(init, task)
    return WeightFacts(_without_mask(trained.model), trained.sampling, trained.input, trained.is_detector)


def _without_mask(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name != "mask"}


def fields_for_segments(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` that a network of segments takes from those that weights were trained with.

    Args:
        model: of a network of segments, which gives all of them; of a detector, which gives those of its backbone, and those of its
            pyramid if segments can have it; or of a backbone.
    """
    if model.get("task") == "segments":
        return {name: value for name, value in model.items() if name != "num_classes"}
    fields = {name: model[name] for name in BACKBONE_FIELDS if name in model}
    pyramids = {*PYRAMIDS_OF_SEGMENTS} - {SINGLE_LEVEL_OF_SEGMENTS}
    if "num_classes" in model and model.get("pyramid", "fpn") in pyramids:
        fields |= {name: model.get(name, getattr(ModelConfig, name)) for name in PYRAMID_FIELDS}
    return fields
