"""Trains every pyramid for a few steps on pictures of odd sizes, evaluates it, saves it and loads it."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from kfpn.config.presets import preset
from kfpn.config.run import InputConfig
from kfpn.evaluation.detect import evaluate_source
from kfpn.evaluation.recall import RECALLS
from kfpn.evaluation.source_pass import SourcePass
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.load import load_submodels, load_trained_detector
from kfpn.runs.workdir import Workdir
from kfpn.training.train import train
from tests.eager import eagerly
from tests.training.made_up import source

WORDS = ("fpn", "bottom_up", "top_down", "finest", "c4", "c5")
OTHERS = {
    "unshared heads": {"shared_rpn": False},
    "bilinear": {"upsampling": "bilinear", "smooth_p5": False, "p6": False, "anchor_sizes": (10.0, 20.0, 40.0, 80.0)},
}


def config(workdir, steps, **model):
    base = preset("shapes")
    small = {"backbone_width": 8, "pyramid_channels": 16, "head_width": 16, "pre_nms_train": 20, "post_nms_train": 20}
    return replace(
        base,
        workdir=str(workdir),
        strategy="one_device",
        steps=steps,
        batch_size=2,
        eval_every=steps,
        log_every=1,
        jit_compile=False,
        samples=0,
        model=replace(base.model, **small, pre_nms_test=20, post_nms_test=20, score_threshold=0.0, **model),
        # 64 pixels become 71, which is no multiple of any stride.
        input=InputConfig(71, 71),
        sampling=replace(base.sampling, rpn_batch=16, roi_batch=8),
        optimizer=replace(base.optimizer, warmup_steps=1, learning_rate=0.02),
    )


PYRAMIDS = {**{word: {"pyramid": word} for word in WORDS}, **OTHERS}
QUICK = ("fpn", "top_down", "c4", "unshared heads")
"""Pyramids that are trained in each run of the tests: one of each kind of graph."""


@pytest.mark.parametrize("name", QUICK)
def test_a_pyramid_is_trained_for_four_steps_evaluated_saved_and_loaded(name, tmp_path):
    """Trains eagerly. The graphs of these pyramids are built in the tests of exports, those of a step in test_train."""
    with eagerly():
        train_evaluate_and_load(PYRAMIDS[name], tmp_path, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", PYRAMIDS)
def test_every_pyramid_is_trained_for_ten_steps_evaluated_saved_and_loaded(name, tmp_path):
    """Trains with graphs. The test above is its small sibling."""
    train_evaluate_and_load(PYRAMIDS[name], tmp_path, 10)


def train_evaluate_and_load(model, tmp_path, steps):
    run = config(tmp_path / "run", steps, **model)
    images, validation = source(0, 8), source(100, 3)
    final = train(run, images, validation)
    assert final["steps"] == steps
    keras.utils.set_random_seed(run.seed)
    fresh = build_submodels(replace(run.model, num_classes=2)).weights_model.trainable_variables
    trained = load_submodels(Workdir(run.workdir)).weights_model.trainable_variables
    # Only kernels are compared: the gamma of a norm is 1 and may change by less than float32 can hold.
    pairs = [pair for pair in zip(fresh, trained, strict=True) if pair[0].path.endswith("kernel")]
    assert [one.path for one, other in pairs if np.array_equal(one.numpy(), other.numpy())] == []
    detector = load_trained_detector(run.workdir, padded=True)
    figures, detections = evaluate_source(detector, SourcePass(validation, run, progress=False), validation.class_names)
    assert figures["AP"] == pytest.approx(final["AP"], abs=1e-6)
    assert all(len(row["scores"]) > 0 for row in detections)
    assert set(final["proposals"]) == set(RECALLS)
