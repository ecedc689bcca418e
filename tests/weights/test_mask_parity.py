"""Compares all numbers of masks with torchvision's and detectron2's, stage by stage, with the limits of `benchmarks/parity_masks.py`."""

import pytest
from parity import MASK_STAGES
from parity_masks import MASK_FOLDERS

pytestmark = pytest.mark.parametrize("imported", MASK_FOLDERS, indirect=True, scope="module")


@pytest.mark.parametrize("stage", MASK_STAGES, ids=lambda stage: stage.__name__)
def test_every_number_of_masks_is_within_its_limit(imported, stage):
    rows = list(stage(imported))
    assert rows
    assert [row for row in rows if not row.holds] == []


def test_the_rules_of_masks_come_with_the_weights(imported):
    rules = imported.trained.sampling["mask_targets"], imported.trained.model["pasting"]
    assert rules == (("soft", "resized") if imported.reference.background_first else ("polygons", "sampled"))
