import keras
import numpy as np
import pytest

from kfpn.export.folding import fold_norms
from kfpn.modeling.detector import inference_model
from kfpn.modeling.submodels import build_submodels
from tests.modeling import tiny


def built(**changes):
    config = tiny.config(**changes)
    keras.utils.set_random_seed(0)
    submodels = build_submodels(config)
    tiny.shake(submodels.weights_model)
    return config, submodels


def pyramids(submodels, image, size):
    batch = {"images": image[None].astype("float32"), "image_sizes": np.array([size], "int32")}
    return submodels.features(batch["images"]), submodels.padded_features(batch)


@pytest.mark.parametrize(
    "changes", [{"norm": "bn"}, {"norm": "frozen_bn", "backbone": "resnet50", "norm_epsilon": 1e-3}]
)
def test_features_are_the_same_after_folding_with_and_without_padding(changes):
    config, submodels = built(**changes)
    folded = fold_norms(submodels, config)
    image = tiny.image(64, 96)
    image[50:], image[:, 70:] = 0, 0
    for before, after in zip(pyramids(submodels, image, (50, 70)), pyramids(folded, image, (50, 70)), strict=True):
        for level in before:
            expected = np.array(before[level])
            assert np.abs(expected).max() > 0.1
            np.testing.assert_allclose(after[level], expected, atol=1e-4 * np.abs(expected).max(), err_msg=level)


def test_folding_leaves_no_norm_and_does_not_change_the_given_models():
    config, submodels = built(norm="bn")
    before = [np.array(variable) for variable in submodels.weights_model.variables]
    folded = fold_norms(submodels, config)
    norms = [layer.name for layer in folded.features.layers if layer.name.endswith("_norm")]
    assert norms == []
    assert not any("moving" in variable.path for variable in folded.weights_model.variables)
    for value, variable in zip(before, submodels.weights_model.variables, strict=True):
        np.testing.assert_array_equal(value, variable)


def test_group_norms_are_not_folded():
    config, submodels = built(norm="gn")
    assert fold_norms(submodels, config) is submodels


def test_a_folded_detector_has_the_same_detections():
    config, submodels = built(norm="bn")
    image = tiny.image(64, 96).astype("float32")[None]
    expected = tiny.detect(inference_model(submodels, config), image)
    folded = fold_norms(submodels, config)
    for nms in ("rounds", "kernel"):
        detections = tiny.detect(inference_model(folded, config, nms=nms), image)
        np.testing.assert_array_equal(detections["num_detections"], expected["num_detections"])
        np.testing.assert_allclose(np.sort(detections["scores"]), np.sort(expected["scores"]), atol=1e-5)
