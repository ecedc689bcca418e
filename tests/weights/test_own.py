"""Tests reading kfpn's own work directories as trained weights."""

import shutil

import numpy as np
import pytest

import kfpn
from kfpn.modeling.submodels import build_submodels
from kfpn.weights.assign import model_config
from kfpn.weights.built_detector import variables_of
from kfpn.weights.identify import read_trained_weights
from tests.weights.foreign import heads, torchvision, trunk, write

UNITS = trunk()
NAMES = ("dog", "person", "toothbrush")


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Writes a detector of torchvision for the 90 ids of COCO, whose names are known."""
    state = torchvision(UNITS, heads(UNITS, classes=90))
    return write(tmp_path_factory.mktemp("own") / "coco.safetensors", state)


@pytest.fixture(scope="module")
def own(coco, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    kfpn.import_weights(coco, folder)
    return folder


@pytest.fixture(scope="module")
def model(coco):
    return kfpn.build_detector(**vars(model_config(read_trained_weights(coco), num_classes=3)))


def values(model):
    return {key: np.array(variable) for key, variable in variables_of(model).items()}


@pytest.mark.parametrize("name", ["", "detector.weights.h5"])
def test_a_work_directory_is_read_as_the_weights_that_it_was_made_of(own, coco, model, name):
    trained, expected = read_trained_weights(own / name), read_trained_weights(coco)
    assert (trained.class_names, trained.category_ids) == (expected.class_names, expected.category_ids)
    assert {**trained.model, **expected.model} == trained.model
    assert trained.sampling["roi_box_beta"] == 1 / 9
    kfpn.load_weights(model, own / name, NAMES)
    by_name = values(model)
    kfpn.load_weights(model, coco, NAMES)
    for key, value in values(model).items():
        np.testing.assert_array_equal(by_name[key], value, key)


@pytest.mark.parametrize("gone", ["config.json", "classes.json", "detector.weights.h5"])
def test_the_error_for_a_work_directory_names_the_missing_file(own, tmp_path, gone):
    shutil.copytree(own, tmp_path / "run")
    (tmp_path / "run" / gone).unlink()
    with pytest.raises(ValueError, match=gone.replace(".", r"\.")) as error:
        read_trained_weights(tmp_path / "run")
    assert "damaged" not in str(error.value)


def test_weights_without_their_work_directory_are_refused(own, tmp_path):
    shutil.copy(own / "detector.weights.h5", tmp_path)
    with pytest.raises(ValueError, match=r"must lie beside the config\.json of its work directory"):
        read_trained_weights(tmp_path / "detector.weights.h5")


def test_the_named_file_of_a_work_directory_is_read(own, tmp_path):
    shutil.copytree(own, tmp_path / "run")
    submodels = build_submodels(model_config(read_trained_weights(own)))
    variables_of(submodels)["rpn_logits/bias"].assign([4.0, 5.0, 6.0])
    submodels.weights_model.save_weights(tmp_path / "run" / "other.weights.h5")
    tensors = read_trained_weights(tmp_path / "run" / "other.weights.h5").tensors
    np.testing.assert_array_equal(tensors["rpn_logits/bias"].value, [4, 5, 6])
