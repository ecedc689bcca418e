import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from kfpn.export.saved_model.served_segmenter import ServedSegmenter
from kfpn.export.stored_form import policy_of_export, stored_form
from kfpn.export.trained import open_either
from kfpn.modeling.layers import PointwiseConv2D
from kfpn.runs.precision import dtype_policy
from tests.export.segment_run import write_segment_run
from tests.modeling import tiny

FLOAT32_LAYERS = {"rpn_logits", "rpn_deltas", "head_logits", "head_deltas", "mask_logits"}


def levels_and_rpn(submodels):
    """Returns the levels of a padded image and the RPN's outputs on them, as one dict of arrays."""
    image = tiny.image(64, 96)
    image[50:], image[:, 70:] = 0, 0
    levels = submodels.padded_features({"images": image[None].astype("float32"), "image_sizes": np.array([[50, 70]])})
    outputs = submodels.rpn(levels)
    named = {f"{kind} {i}": value for kind, values in outputs.items() for i, value in enumerate(values)}
    return {name: np.array(keras.ops.cast(value, "float32")) for name, value in {**levels, **named}.items()}


def require_near(submodels, other, limit):
    """Checks that no output differs by more than a share of the largest one."""
    got = levels_and_rpn(other)
    for name, expected in levels_and_rpn(submodels).items():
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(got[name], expected, atol=limit * np.abs(expected).max(), err_msg=name)


def test_in_float32_the_form_has_convolutions_in_place_of_products_and_gives_the_same(trained):
    form = stored_form(trained, "float32")
    kinds = [type(layer) for layer in form.submodels.features.layers]
    assert PointwiseConv2D not in kinds
    assert PointwiseConv2D in [type(layer) for layer in trained.submodels.features.layers]
    require_near(trained.submodels, form.submodels, 1e-5)


def test_in_bfloat16_all_weights_but_those_of_the_last_layers_are_stored_in_it_and_numbers_stay_near(trained_masks):
    form = stored_form(trained_masks, "bfloat16")
    assert form.precision == "bfloat16"
    for variable in form.submodels.weights_model.variables:
        layer = variable.path.split("/")[-2]
        assert variable.dtype == ("float32" if layer in FLOAT32_LAYERS else "bfloat16"), variable.path
    require_near(trained_masks.submodels, form.submodels, 0.05)
    outputs = form.submodels.rpn(form.submodels.features(tiny.image(64, 64)[None].astype("float32")))
    assert {value.dtype for values in outputs.values() for value in values} == {tf.float32}
    with pytest.raises(AssertionError):  # The numbers do differ: they are not those of float32.
        require_near(trained_masks.submodels, form.submodels, 1e-5)


def test_no_submodel_casts_its_features_to_float32_and_back(trained_masks):
    form = stored_form(trained_masks, "bfloat16").submodels
    inputs = [value for model in (form.rpn, *form.heads.values()) for value in keras.tree.flatten(model.input)]
    assert {value.dtype for value in inputs} == {"bfloat16"}


def test_group_norms_are_kept_and_compute_in_bfloat16(tmp_path, make_workdir):
    trained = open_either(make_workdir(tmp_path / "run", norm="gn"))
    assert stored_form(trained, "float32") is trained
    form = stored_form(trained, "bfloat16")
    assert [layer.name for layer in form.submodels.features.layers if layer.name.endswith("_norm")]
    assert form.submodels.features.get_layer("stem_conv").compute_dtype == "bfloat16"
    require_near(trained.submodels, form.submodels, 0.1)


def test_a_keras_model_keeps_the_statistics_of_its_norms_in_float32():
    resnet = tiny.config(norm="bn")
    assert policy_of_export(resnet, "bfloat16") == "bfloat16"
    assert policy_of_export(resnet, "float32") == "float32"
    foreign = dataclasses.replace(resnet, backbone="keras:mobilenet_v2")
    assert policy_of_export(foreign, "bfloat16") == "mixed_bfloat16"


def test_segments_are_near_those_of_float32_and_their_scores_and_masks_are_float32(tmp_path):
    trained = open_either(write_segment_run(tmp_path / "run"))
    form = stored_form(trained, "bfloat16")
    images, sizes = tiny.image(64, 96)[None].astype("float32"), tf.constant([[64, 96]])
    scores = []
    for one, precision in ((trained, "float32"), (form, "bfloat16")):
        segmenter = ServedSegmenter(one)
        with dtype_policy(policy_of_export(one.config.model, precision)):
            hidden, own = segmenter.all_windows(segmenter.pyramid(images, sizes))
        assert {value.dtype for value in own} == {tf.float32}
        assert {value.dtype.name for value in hidden} == {precision}
        scores.append(np.concatenate([np.array(value).ravel() for value in own]))
    np.testing.assert_allclose(scores[1], scores[0], atol=0.05 * np.abs(scores[0]).max())
