import dataclasses

import numpy as np
import pytest

from kfpn.config.presets import preset
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from kfpn.weights import shipped
from kfpn.weights.assign import assign_weights
from kfpn.weights.built_detector import variables_of
from kfpn.weights.identify import read_trained_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work directory with a detector of random weights."""
    base = preset("shapes")
    small = dataclasses.replace(base.model, backbone_width=8, pyramid_channels=16, head_width=16, num_classes=3)
    workdir = Workdir(tmp_path_factory.mktemp("made"))
    workdir.prepare(dataclasses.replace(base, model=small), ("disc", "ring", "blob"), (1, 2, 3), "made", {"images": 1})
    submodels = build_submodels(small)
    workdir.save_weights(submodels.weights_model)
    return workdir, submodels


def test_weights_that_are_written_are_read_again_but_for_the_rounding_to_half_precision(run, tmp_path, monkeypatch):
    workdir, submodels = run
    file = tmp_path / "folder" / "small.npz"
    shipped.write_shipped(workdir.path, file)
    monkeypatch.setattr(shipped, "SHIPPED", {"kfpn:small": file})
    trained = shipped.read_shipped("kfpn:small")
    assert trained.is_detector
    assert trained.class_names == ("disc", "ring", "blob")
    assert trained.model["backbone_width"] == 8
    assert trained.input["short_side"] == 128
    expected = {name: variable.numpy() for name, variable in variables_of(submodels).items()}
    assert trained.tensors.keys() == expected.keys()
    for name, tensor in trained.tensors.items():
        np.testing.assert_allclose(tensor.value, expected[name], rtol=1e-3, atol=1e-7)
        assert tensor.value.dtype == np.float32


def test_the_file_in_the_package_fits_the_network_that_auto_chooses_and_takes_less_than_10_mb():
    trained = read_trained_weights("kfpn:small")
    assert shipped.SHIPPED["kfpn:small"].stat().st_size < 10e6
    base = preset("shapes")
    model = dataclasses.replace(base.model, num_classes=2, anchor_sizes=(12.0, 24.0, 48.0, 96.0, 160.0))
    submodels = build_submodels(model)
    before = {name: variable.numpy() for name, variable in variables_of(submodels).items()}
    with pytest.warns(UserWarning, match="left fresh") as said:
        assign_weights(trained, submodels, vars(model), ["cat", "dog"])
    assert len(said) == 1  # nothing on anchors of other sizes, which are meant to fit the data
    after = {name: variable.numpy() for name, variable in variables_of(submodels).items()}
    np.testing.assert_array_equal(after["stem_conv/kernel"], trained.tensors["stem_conv/kernel"].value)
    same = [name for name in before if np.array_equal(before[name], after[name])]
    assert all(name.startswith(("head_logits", "head_deltas", "normalize")) for name in same), same
    assert all(np.isfinite(value).all() for value in after.values())


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="name must be kfpn:small, got 'kfpn:large'"):
        shipped.read_shipped("kfpn:large")
