"""Writes a work directory as `kfpn train --task segments` would, small enough for every test."""

import dataclasses

import numpy as np

from kfpn.config.presets import preset
from kfpn.modeling.segment_submodels import build_segment_submodels
from kfpn.runs.workdir import Workdir
from tests.modeling import tiny

COUNT = 40


def write_segment_run(path, **model):
    """Writes the run, with random weights whose scores and masks differ from window to window, and returns its path."""
    config = tiny.config(
        **{
            "task": "segments",
            "norm": "bn",
            "backbone_width": 16,
            "pyramid_channels": 16,
            "segment_width": 16,
            "max_segments": COUNT,
            **model,
        }
    )
    base = preset("shapes")
    rule = dataclasses.replace(base.input, short_side=64, long_side=112, divisor=32)
    weights_model = build_segment_submodels(config).weights_model
    tiny.shake(weights_model)
    rng = np.random.default_rng(1)
    for variable in weights_model.variables:
        if variable.path.endswith("kernel") and "_logits" in variable.path:  # Steeper scores would be 1, and equal.
            variable.assign(rng.normal(0.0, 0.05 if "score" in variable.path else 0.3, variable.shape))
    run = Workdir(path)
    run.check_writable()
    run.prepare(dataclasses.replace(base, model=config, input=rule, workdir=str(path)), ("thing",), (1,), "by hand")
    run.save_weights(weights_model)
    return run.path
