import json

import numpy as np
import pytest

from kfpn.weights.assign import model_config
from kfpn.weights.identify import read_trained_weights
from kfpn.weights.makers import detectron2 as detectron2_reader
from kfpn.weights.makers import torchvision as torchvision_reader
from kfpn.weights.makers.foreign_arrays import ForeignArrays
from tests.weights.foreign import SMALL, detectron2, heads, mask_head, mask_logits, near, torchvision, trunk, write
from tests.weights.import_foreign import imported

UNITS = trunk()


def of_torchvision(classes=3, masks=None, old=False, **sizes):
    """Returns a Mask R-CNN with torchvision's names. The background has a mask too."""
    layers = heads(UNITS, classes) | mask_head(masks or classes + 1, **sizes)
    return torchvision(UNITS, layers, old), layers


def of_detectron2(classes=3, masks=None, **sizes):
    layers = heads(UNITS, classes, background_first=False) | mask_head(masks or classes, **sizes)
    return {"model": detectron2(UNITS, layers)}, layers


@pytest.mark.parametrize(
    ("name", "make", "first", "kind", "pasting"),
    [
        ("new.safetensors", of_torchvision, 1, "torchvision", "resized"),
        ("old.safetensors", lambda: of_torchvision(old=True), 1, "torchvision", "resized"),
        ("d2.pkl", of_detectron2, 0, "detectron2", "sampled"),
    ],
)
def test_a_mask_head_is_recognised_by_its_content_and_computes_what_it_did_there(
    tmp_path, name, make, first, kind, pasting
):
    content, layers = make()
    trained, submodels = imported(write(tmp_path / name, content))
    assert trained.kind == f"{kind} Mask R-CNN resnet18 FPN, 3 classes"
    config = model_config(trained)
    assert (config.mask, config.mask_classes, config.mask_channels, config.pasting) == (True, "each", 6, pasting)
    rois = np.random.default_rng(4).normal(size=(3, SMALL["channels"], 14, 14))
    logits = submodels.heads["mask"](np.transpose(rois, (0, 2, 3, 1)).astype(np.float32))
    near(logits, np.transpose(mask_logits(layers, rois)[:, first:], (0, 2, 3, 1)))


@pytest.mark.parametrize("make", [of_torchvision, of_detectron2])
def test_one_mask_for_all_classes_is_agnostic(tmp_path, make):
    content, layers = make(masks=1)
    trained, submodels = imported(write(tmp_path / "m.pkl", content))
    assert model_config(trained).mask_classes == "agnostic"
    kernel = np.array(submodels.heads["mask"].get_layer("mask_logits").kernel)
    np.testing.assert_array_equal(kernel[0, 0], layers["masks"][0][:, :, 0, 0].T)


def test_a_detector_of_one_class_has_a_mask_for_each(tmp_path):
    # One mask of one class: detectron2's file does not tell the two kinds apart, and they compute the same.
    content, _ = of_detectron2(classes=1)
    assert model_config(read_trained_weights(write(tmp_path / "m.pkl", content))).mask_classes == "each"


def test_another_number_of_masks_than_of_classes_is_refused():
    content, _ = of_torchvision(masks=3)
    with pytest.raises(ValueError, match=r"mask_fcn_logits.bias must have 4 values, a mask a class, or 1, got 3"):
        torchvision_reader.read(ForeignArrays("m.pth", content))
    content, _ = of_detectron2(masks=4)
    with pytest.raises(ValueError, match=r"mask_head.predictor.bias must have 3 values, a mask a class, or 1, got 4"):
        detectron2_reader.read(ForeignArrays("m.pkl", content["model"]))


@pytest.mark.parametrize("lost", ["roi_heads.mask_head.2.0.bias", "roi_heads.mask_predictor.conv5_mask.weight"])
def test_a_tensor_that_the_mask_head_lacks_is_named(lost):
    content, _ = of_torchvision()
    del content[lost]
    with pytest.raises(ValueError, match=rf"m\.pth: .*1 missing: {lost}"):
        torchvision_reader.read(ForeignArrays("m.pth", content))


@pytest.mark.parametrize(
    ("folder", "make"), [("torchvision_mask_r50", torchvision), ("detectron2_mask_r50", detectron2)]
)
def test_the_names_are_those_of_the_libraries_own_mask_rcnn(shared, folder, make):
    file = np.load(shared(f"parity/{folder}/weights.npz"))
    names = {name for name, _ in json.loads(str(file["parameters"]))} | set(file.files)
    units = trunk("resnet50")
    own = make(units, heads(units) | mask_head())
    assert set(own) == names - {"parameters", "parameters_check", "seed"}
