"""Compares the numbers of masks with torchvision's and detectron2's, stage by stage, with the limits of `benchmarks/parity_masks.py`."""

import pytest
from parity_masks import MASK_FOLDERS, MASK_STAGES
from parity_reference import Reference, import_reference


@pytest.fixture(scope="module", params=MASK_FOLDERS)
def imported(request, shared):
    return import_reference(Reference(shared(f"parity/{request.param}")))


@pytest.mark.parametrize("stage", MASK_STAGES, ids=lambda stage: stage.__name__)
def test_every_number_of_masks_is_within_its_limit(imported, stage):
    rows = list(stage(imported))
    assert rows
    assert [row for row in rows if not row.holds] == []


def test_the_settings_of_masks_come_with_the_weights(imported):
    model = imported.trained.model
    assert (model["mask"], model["mask_channels"], model["mask_classes"]) == (True, 256, "each")
    assert model["pasting"] == ("resized" if imported.reference.background_first else "sampled")
