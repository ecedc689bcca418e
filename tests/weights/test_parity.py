"""Compares all numbers with torchvision's and detectron2's, stage by stage, with the limits of `benchmarks/parity.py`."""

import numpy as np
import pytest
from parity import FOLDERS, STAGES, training_rows

EVEN = ("torchvision_r50", "detectron2_r50")
"""Folders of an image of 320 x 416, which no library pads, with a step of training. Those of 301 x 437 have the same network."""
of_folders = pytest.mark.parametrize("imported", FOLDERS, indirect=True, scope="module")
INFERENCE = tuple(stage for stage in STAGES if stage is not training_rows)


def require_limits(rows):
    assert rows
    assert [row for row in rows if not row.holds] == []


@pytest.mark.parametrize(
    "imported",
    [pytest.param(name, marks=[pytest.mark.slow] if name in EVEN else []) for name in FOLDERS],
    indirect=True,
    scope="module",
)
@pytest.mark.parametrize("stage", INFERENCE, ids=lambda stage: stage.__name__)
def test_every_number_is_within_its_limit(imported, stage):
    """Checks inference. The even sizes are slow: 301 x 437 checks the same with padding, and test_mask_parity has even sizes."""
    require_limits(list(stage(imported)))


@of_folders
def test_every_number_of_a_training_step_is_within_its_limit(imported):
    if imported.reference.name in EVEN:
        require_limits(list(training_rows(imported)))
    else:
        assert imported.reference.train is None


@of_folders
def test_the_settings_come_with_the_weights(imported):
    model, sampling = imported.trained.model, imported.trained.sampling
    expected = {
        "backbone": "resnet50",
        "norm": "frozen_bn",
        "norm_epsilon": 1e-5,
        "pyramid_channels": 256,
        "head_width": 1024,
        "padding": "foreign",
    }
    assert {name: model[name] for name in expected} == expected
    if imported.reference.background_first:
        assert (model["num_classes"], model["stride_on"], model["aligned"], model["sampling_ratio"]) == (
            90,
            "3x3",
            False,
            2,
        )
        assert (model["round_anchors"], model["anchor_strides"]) == (True, "image")
        assert sampling == {"rpn_box_beta": 1 / 9, "roi_box_beta": 1 / 9}
    else:
        assert (model["num_classes"], model["stride_on"], model["aligned"], model["sampling_ratio"]) == (
            80,
            "1x1",
            True,
            0,
        )
        assert sampling == {"rpn_box_beta": 0.0, "roi_box_beta": 0.0}


@of_folders
def test_the_comparison_measures_a_wrong_value_in_standard_deviations(imported):
    # This tests the comparison itself: a value of P3 that is 2 standard deviations too large must be measured as 2.
    reference = imported.reference
    shape, values, whole = reference.rule.expected(reference.infer, "P3")
    assert not whole
    array = np.zeros(shape, np.float32)
    at = (np.arange(len(values), dtype=np.int64) * reference.rule.STRIDE) % array.size
    array.reshape(-1)[at] = values
    assert reference.compare("P3", array) == 0.0
    array.reshape(-1)[at[7]] += 2 * reference.infer["P3/mean_std"][1]
    assert reference.compare("P3", array) == pytest.approx(2.0, rel=1e-4)
