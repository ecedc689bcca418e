"""Tests `model.padding` "foreign": padding that acts, as in torchvision and detectron2."""

import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import kfpn
from kfpn.kernels.sparse_roi_align import SparseRoIAlign
from kfpn.modeling.detector import Detector, inference_model
from kfpn.modeling.layers import PadToMultiple
from kfpn.modeling.pooling import RoIAlign
from kfpn.modeling.proposals import level_anchors, usable_anchors
from kfpn.modeling.submodels import build_submodels
from kfpn.ops.padding import sizes_with_padding
from kfpn.weights.built_detector import built_settings
from tests.modeling import tiny

SIZES = np.array([[33, 70], [60, 41]], "int32")


def batch(sizes=SIZES, canvas=(64, 96)):
    """Returns random images in a canvas whose padding holds other numbers than zero."""
    images = np.full((len(sizes), *canvas, 3), 37, "uint8")
    for i, (height, width) in enumerate(sizes):
        images[i, :height, :width] = tiny.image(height, width, seed=i)
    return {"images": images, "image_sizes": np.array(sizes, "int32")}


@pytest.fixture(scope="module", params=["fpn", "c4"])
def foreign(request):
    config = tiny.config(padding="foreign", norm="frozen_bn", pyramid=request.param, anchor_strides="image")
    submodels = build_submodels(config)
    tiny.shake(submodels.weights_model)
    return submodels, config


@pytest.mark.parametrize(
    ("size", "padded"), [((1, 1), (32, 32)), ((32, 64), (32, 64)), ((33, 63), (64, 64)), ((65, 96), (96, 96))]
)
@pytest.mark.parametrize("sizes", ["static", "dynamic", "compiled"])
def test_maps_are_padded_with_zeros_below_and_right_to_a_multiple_of_32(size, padded, sizes):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    layer = PadToMultiple()
    spec = tf.TensorSpec(x.shape if sizes == "static" else (None, None, None, 3), tf.float32)
    y = np.array(tf.function(layer, input_signature=[spec], jit_compile=sizes == "compiled")(x))
    assert y.shape == (2, *padded, 3) == layer.compute_output_spec(keras.KerasTensor(x.shape)).shape
    np.testing.assert_array_equal(y[:, : size[0], : size[1]], x)
    assert np.count_nonzero(y) == np.count_nonzero(x)


def test_the_layer_adds_no_operation_where_the_sides_are_known_to_fit():
    x = tf.zeros((1, 64, 32, 3))
    np.testing.assert_array_equal(PadToMultiple()(x), x)
    graph = tf.function(PadToMultiple()).get_concrete_function(tf.TensorSpec((None, 64, 32, 3))).graph
    assert not [op.type for op in graph.get_operations() if op.type.startswith("Pad")]


def test_sizes_with_padding_are_those_of_the_canvas():
    levels = {"P2": np.zeros((2, 16, 24, 1)), "P3": np.zeros((2, 8, 12, 1)), "P6": np.zeros((2, 1, 2, 1))}
    assert sizes_with_padding(levels, SIZES, "zero") is SIZES
    assert np.array(sizes_with_padding(levels, SIZES, "foreign")).tolist() == [[64, 96]]
    assert np.array(sizes_with_padding({"C4": np.zeros((1, 4, 6, 1))}, SIZES, "foreign")).tolist() == [[64, 96]]


def test_all_cells_of_the_canvas_have_anchors_and_their_strides_are_the_canvas_s():
    # torchvision: 64 x 96 pixels on P6's 1 x 2 cells are 64 and 48 pixels apart. Alone, the second image is 41 pixels wide.
    def settings(padding):
        return SimpleNamespace(
            anchor_sizes=(8.0, 8.0), aspect_ratios=(1.0,), round_anchors=False, anchor_strides="image", padding=padding
        )

    features = {"P2": np.zeros((2, 16, 24, 1)), "P6": np.zeros((2, 1, 2, 1))}
    fine, coarse = (np.array(level) for level in level_anchors(features, SIZES, settings("foreign")))
    assert fine.shape == (1, 16 * 24, 4)
    assert coarse.tolist() == [[[-4, -4, 4, 4], [-4, 44, 4, 52]]]
    usable = [np.array(level) for level in usable_anchors(features, SIZES, settings("foreign"))]
    assert [level.shape for level in usable] == [(2, 384), (2, 2)]
    assert all(level.all() for level in usable)
    coarse = np.array(level_anchors(features, SIZES, settings("zero"))[1])
    assert coarse[:, 1].tolist() == [[-4, 44, 4, 52], [-4, 60, 4, 68]]
    assert np.array(usable_anchors(features, SIZES, settings("zero"))[1]).tolist() == [[True, True], [True, False]]


def test_samples_are_clamped_to_the_canvas_and_not_to_the_image():
    features = {"P2": np.arange(16 * 16, dtype="float32").reshape(1, 16, 16, 1)}
    sizes, rois = np.array([[30, 30]], "int32"), np.array([[[0.0, 20.0, 4.0, 60.0]]], "float32")
    for layer in (RoIAlign, SparseRoIAlign):
        pooled = {
            padding: np.array(layer(1, 2, False, levels=("P2",), padding=padding)(features, rois, sizes)).item()
            for padding in ("zero", "foreign")
        }
        # Samples lie at rows .25 and .75, columns 5 + 2.5 and 5 + 7.5 of the map. 30 pixels are 8 cells: 12.5 lies beyond.
        assert pooled == {"zero": (16 * 0.5 + 7.0) / 2 + 0.0, "foreign": 16 * 0.5 + 10.0}


def test_a_batch_gives_what_its_images_give_when_they_are_padded_to_the_largest(foreign):
    # Padding holds zeros behind the normalisation, so an image with the mean colour as padding is the same to the network.
    submodels, config = foreign
    found = tiny.detect(inference_model(submodels, config, padded=True), batch(canvas=(60, 70)))
    detector = Detector(submodels, config, padded=False)
    for i, size in enumerate(SIZES):
        image = np.full((1, 64, 96, 3), config.pixel_mean, "float32")
        image[0, : size[0], : size[1]] = tiny.image(*size, seed=i)
        alone = {name: np.array(x) for name, x in detector(image, size[None]).items()}
        assert alone["num_detections"][0] == found["num_detections"][i] > 0
        np.testing.assert_allclose(found["boxes"][i], alone["boxes"][0], atol=1e-3)
        np.testing.assert_allclose(found["scores"][i], alone["scores"][0], atol=1e-5)
        assert np.all(found["boxes"][i] <= np.tile(size, 2))


def test_an_image_without_padding_is_padded_by_the_model(foreign):
    submodels, config = foreign
    one = batch(SIZES[:1], SIZES[0])
    alone, padded = (inference_model(submodels, config, padded) for padded in (False, True))
    for want, got in zip(tiny.detect(alone, one["images"]).values(), tiny.detect(padded, one).values(), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_padding_acts_on_the_image_s_border(foreign):
    submodels, config = foreign
    zero = build_submodels(dataclasses.replace(config, padding="zero"))
    for own, other in zip(
        zero.weights_model.variables, submodels.weights_model.variables, strict=True
    ):  # the option adds no variable
        assert own.path.split("/")[-2:] == other.path.split("/")[-2:]
        own.assign(other)
    image = tiny.image(64, 64, 1)[None].astype("float32")
    level = min(submodels.features.output)
    np.testing.assert_array_equal(zero.features(image)[level], submodels.features(image)[level])  # nothing to pad
    want, got = (np.array(model.features(image[:, :33, :33])[level]) for model in (zero, submodels))
    rows, columns = want.shape[1:3]
    assert np.abs(got[:, :rows, :columns] - want).max() > 0.01


def test_the_setting_is_checked_and_kept_in_saved_models(tmp_path):
    with pytest.raises(ValueError, match=r"model\.padding must be"):
        tiny.config(padding="none")
    model = kfpn.build_detector(3, "resnet18", norm="frozen_bn", padding="foreign", **tiny.SETTINGS)
    assert built_settings(model)["padding"] == "foreign"
    image = tiny.image(33, 40)[None]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert built_settings(again)["padding"] == "foreign"
    tiny.require_same_detections(model, again, image)


def test_weights_of_one_padding_load_into_the_other(tmp_path):
    # An imported work directory of 0.1.0 gets the foreign numbers by one word in its config.json.
    models = [build_submodels(tiny.config(padding=padding)).weights_model for padding in ("zero", "foreign")]
    models[0].save_weights(tmp_path / "x.weights.h5")
    models[1].load_weights(tmp_path / "x.weights.h5")
    for one, other in zip(models[0].variables, models[1].variables, strict=True):
        np.testing.assert_array_equal(one, other)
