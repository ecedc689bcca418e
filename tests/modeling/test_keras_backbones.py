"""Tests Keras models as backbones: their maps, their pixels, what is frozen, and what padding does."""

import warnings
import zipfile

import keras
import numpy as np
import pytest

import kfpn
from kfpn.modeling.backbones.applications import PIXEL_RULES, build_application, pixel_rule
from kfpn.modeling.backbones.backbone_model import adopt, layers_within
from kfpn.modeling.backbones.given_backbone import opened
from kfpn.modeling.backbones.pixel_preparation import prepares_pixels
from kfpn.modeling.backbones.stage_outputs import stage_outputs
from kfpn.modeling.submodels import build_submodels
from kfpn.weights.built_detector import built_settings, variables_of
from tests.modeling import tiny
from tests.modeling.keras_models import convolutions, squeezing

SETTINGS = {name: value for name, value in tiny.SETTINGS.items() if name not in ("backbone_width", "freeze_stages")}


def detector_on(model, **settings):
    return kfpn.build_detector(3, model, **{**SETTINGS, **settings})


def names_of(maps):
    return [tensor._keras_history.operation.name for tensor in maps.values()]


# ------------------------------------------------------------------------------------------------ the maps C2 to C5


def test_the_maps_are_the_last_ones_at_strides_4_to_32():
    maps = stage_outputs(convolutions())
    assert names_of(maps) == ["relu2", "relu3", "relu4", "relu5"]
    assert [tensor.shape[-1] for tensor in maps.values()] == [16, 24, 32, 40]


def test_named_layers_pyramid_outputs_and_own_outputs_come_before_the_guess():
    model = convolutions()
    outputs = [model.get_layer(f"bn{i}").output for i in (5, 4, 3, 2)]
    assert names_of(stage_outputs(model, ["conv2", "conv3", "conv4", "conv5"])) == ["conv2", "conv3", "conv4", "conv5"]
    assert names_of(stage_outputs(keras.Model(model.inputs, outputs))) == ["bn2", "bn3", "bn4", "bn5"]
    model.pyramid_outputs = {f"P{i}": model.get_layer(f"conv{i}").output for i in (1, 2, 3, 4, 5)}
    assert names_of(stage_outputs(model)) == ["conv2", "conv3", "conv4", "conv5"]


class Subclassed(keras.Model):
    def call(self, images):
        return images


def two_inputs():
    inputs = [keras.Input((None, None, 3)), keras.Input((None, None, 3))]
    return keras.Model(inputs, keras.layers.Add()(inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: convolutions(strides=(4, 2, 2, 2, 1)), None),
        (lambda: convolutions(strides=(8, 1, 2, 2, 1)), "none of stride 4 in mine, which has .*stride 8: .*relu2; stride 16"),
        (lambda: convolutions(strides=(1, 2, 2, 2, 2)), "none of stride 32 in mine"),
        (lambda: convolutions(size=(224, 224, 3)), r"images of any size, got the input \(224, 224, 3\) in mine: build it with"),
        (lambda: convolutions(size=(None, None, 1)), r"images of 3 channels, .*, got the input \(None, None, 1\)"),
        (two_inputs, "one input, the images, got 2"),
        (Subclassed, "a functional keras.Model, got .*, a Subclassed without symbolic inputs"),
        (keras.Sequential, "a functional keras.Model, got .*, a Sequential"),
        (lambda: 18, "a name or a keras.Model, got a int$"),
        (lambda: keras.applications.MobileNetV2, "a name or a keras.Model, got a function: call it, and give the model"),
    ],
)  # fmt: skip
def test_a_model_that_can_t_be_a_backbone_is_refused_in_one_line(make, message):
    if message is None:
        assert names_of(stage_outputs(make())) == ["relu1", "relu2", "relu3", "relu5"]
        return
    with pytest.raises(ValueError, match=rf"^backbone must .*{message}") as error:
        kfpn.build_detector(3, make())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("relu1", "relu3", "relu4", "relu5"), r"have stride 4 for C2, got 2 in mine, which has stride 2: conv1, bn1, relu1; stride 4"),
        (("relu2", "relu3", "relu4", "other"), r"name layers of mine that give maps, got 'other'; it has stride 2: conv1, bn1, relu1; "),
        ("relu2,relu3", r"be four names, of C2, C3, C4 and C5, separated by commas, got 'relu2,relu3'"),
    ],
)  # fmt: skip
def test_wrong_names_of_layers_are_refused_with_the_candidates(layers, message):
    with pytest.raises(ValueError, match=rf"backbone_layers must {message}"):
        detector_on(convolutions(), backbone_layers=layers)


# ------------------------------------------------------------------------------------------------ names and settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "keras:efficientnetv2b0"}, "did you mean keras:efficientnetv2-b0?"),
        ({"backbone": "keras:convnext_tiny", "norm": "gn"}, r"model\.norm must be frozen_bn, bn or sync_bn with backbone"),
        ({"backbone": "keras:convnext_tiny", "pyramid": "c4"}, r"model\.pyramid must not be c4 with backbone keras:convnext_tiny"),
        ({"backbone": "keras:convnext_tiny", "pixel_std": (1.0, 1.0, 1.0)}, r"model\.pixel_std must be .* leave it out"),
        ({"backbone": "resnet18", "backbone_layers": "a,b,c,d"}, r"model\.backbone_layers must be left out with backbone resnet18"),
        ({"backbone": "nowhere.keras"}, r"model\.backbone must be a file .*, got 'nowhere\.keras', which does not exist"),
        ({"backbone": "resnet50", "weights": "imagenet"}, r"weights must be None, or 'imagenet' with a backbone keras:NAME"),
        ({"backbone": "keras:resnet50", "weights": "coco"}, r"weights must be None, or 'imagenet'.*, got 'coco'"),
    ],
)  # fmt: skip
def test_settings_that_a_keras_model_can_t_follow_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        kfpn.build_detector(3, **settings)


def test_a_frozen_model_with_settings_that_would_freeze_it_is_refused():
    model = convolutions()
    model.trainable = False
    with pytest.raises(ValueError, match=r"norm must be left out with a frozen backbone, got 'frozen_bn' with mine"):
        detector_on(model, norm="frozen_bn")
    assert not detector_on(model).get_layer("features").get_layer("backbone").trainable_weights


def test_frozen_norms_stay_frozen_and_a_setting_that_says_otherwise_is_refused():
    model = convolutions()
    for i in range(1, 6):
        model.get_layer(f"bn{i}").trainable = False
    with pytest.raises(
        ValueError, match=r"^model\.norm must be frozen_bn with backbone mine\.keras, got 'sync_bn': its batch norms"
    ):
        detector_on(model, norm="sync_bn")
    backbone = detector_on(model).get_layer("features").get_layer("backbone")
    assert {variable.path.split("/")[-2] for variable in backbone.trainable_weights} == {
        f"conv{i}" for i in range(1, 6)
    }


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({}, "conv1 bn1 conv2 bn2 conv3 bn3 conv4 bn4 conv5 bn5"),
        ({"norm": "frozen_bn"}, "conv1 conv2 conv3 conv4 conv5"),
        ({"freeze_stages": 1}, "bn2 conv3 bn3 conv4 bn4 conv5 bn5"),
        ({"freeze_stages": 3, "norm": "sync_bn"}, "conv4 bn4 conv5 bn5"),
        ({"freeze_stages": 5}, ""),
    ],
)
def test_norm_and_freeze_stages_say_what_trains_in_the_model(settings, trained):
    model = convolutions()
    backbone = adopt(model, tiny.config(backbone="mine.keras", **{"norm": "bn", **settings}))
    inner = {layer.name: layer for layer in layers_within(backbone)}
    assert [
        name for name, layer in inner.items() if layer.trainable_weights and "_" not in name and name != "backbone"
    ] == trained.split()
    assert inner["bn5"].synchronized == (settings.get("norm") == "sync_bn")


# ------------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize(
    ("start", "module"), [("densenet", "densenet"), ("mobilenet", "mobilenet_v2"), ("resnet", "resnet")]
)
def test_pixels_of_a_named_network_are_prepared_as_keras_does(start, module):
    rule, image = PIXEL_RULES[start], tiny.image(4, 5).astype("float32")
    ours = (image - np.array(rule.mean)) / np.array(rule.std)
    theirs = getattr(keras.applications, module).preprocess_input(image.copy())
    np.testing.assert_allclose(ours[..., ::-1] if rule.bgr else ours, theirs, atol=1e-4)


def test_a_detector_on_a_named_network_has_its_rule_of_pixels_no_dropout_and_norms_that_forget_fast(monkeypatch):
    made = convolutions()
    made.get_layer("bn1").momentum = 0.999  # MobileNets have it; a run of some thousand steps needs less.
    made = keras.Model(made.inputs, keras.layers.Dropout(0.3)(made.output))
    monkeypatch.setattr(keras.applications, "MobileNetV3Small", lambda **_: made)
    features = detector_on("keras:mobilenet_v3_small").get_layer("features")
    image = tiny.image(64, 96)[None].astype("float32")
    ours = keras.Model(features.inputs, features.get_layer("C5").output)(image, training=False)
    np.testing.assert_allclose(ours, made(image / 127.5 - 1.0, training=False), atol=1e-5)
    inner = list(layers_within(features.get_layer("backbone")))
    assert {layer.momentum for layer in inner if isinstance(layer, keras.layers.BatchNormalization)} == {0.9}
    # Random numbers would depend on the number of replicas.
    assert [layer.rate for layer in inner if isinstance(layer, keras.layers.Dropout)] == [0.0]


@pytest.mark.slow
def test_a_detector_on_a_named_network_prepares_pixels_as_the_whole_network_of_keras_does():
    detector = kfpn.build_detector(3, "keras:mobilenet_v3_small", **SETTINGS)
    features = detector.get_layer("features")
    theirs = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(None, None, 3))
    theirs.set_weights(features.get_layer("backbone").get_weights())
    image = tiny.image(64, 96)[None].astype("float32")
    ours = keras.Model(features.inputs, features.get_layer("C5").output)(image, training=False)
    np.testing.assert_allclose(ours, theirs(image, training=False), atol=1e-4)
    assert built_settings(detector)["backbone"] == "keras:mobilenet_v3_small"
    assert pixel_rule("keras:efficientnetv2-s").std != pixel_rule("keras:efficientnetv2-b1").std


@pytest.mark.parametrize("preparing", [False, True])
def test_a_model_gets_pixels_of_0_to_255_only_if_it_prepares_them_itself(preparing):
    model = convolutions(preparing=preparing)
    assert prepares_pixels(model) == preparing
    detector, image = detector_on(model), tiny.image(64, 32)[None].astype("float32")
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    expected = model(image if preparing else ((image - mean) / std).astype("float32"), training=False)
    features = detector.get_layer("features")
    np.testing.assert_allclose(
        keras.Model(features.inputs, features.get_layer("C5").output)(image, training=False), expected, atol=1e-4
    )
    if preparing:
        with pytest.raises(ValueError, match=r"model\.pixel_mean must be left out, got .*: the backbone begins with"):
            detector_on(model, pixel_mean=(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("first", "step"),
    [
        (lambda x: x / 255.0, "TrueDivide"),
        (lambda x: keras.applications.mobilenet_v2.preprocess_input(x), "TrueDivide"),
        (lambda x: keras.layers.Rescaling(1 / 255)(keras.layers.RandomContrast(0.1)(x)), "Rescaling"),
    ],
)
def test_pixels_that_a_model_prepares_in_another_way_are_warned_of_unless_the_rule_is_given(first, step):
    model = behind(first)
    with pytest.warns(UserWarning, match=rf"^backbone \w+ seems to prepare its pixels by {step} \(\w+\), which is not"):
        opened(model, None, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(model, None, {"pixel_mean": (0, 0, 0), "pixel_std": (1, 1, 1)})
        opened(convolutions(preparing=True), None, {})
        opened(convolutions(), None, {})


def behind(first):
    """Returns five convolutions behind what prepares the pixels."""
    inputs = keras.Input((None, None, 3))
    x = first(inputs)
    for _layer in range(5):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("nested", [False, True])
def test_layers_that_move_pixels_are_refused_because_boxes_would_stay(nested):
    flip = keras.layers.RandomFlip(name="flip")
    with pytest.raises(
        ValueError, match=r"^backbone must leave all pixels in their places, got layer flip, a RandomFlip:"
    ):
        detector_on(behind(keras.Sequential([flip]) if nested else flip))


def test_the_maps_of_a_nested_model_are_not_looked_for_and_the_error_says_so():
    inputs, base = keras.Input((None, None, 3)), convolutions()
    with pytest.raises(
        ValueError, match=r"got none of stride .*; maps within the nested mine count if it is the backbone by"
    ):
        detector_on(keras.Model(inputs, keras.layers.Conv2D(8, 1)(base(inputs))))


# ------------------------------------------------------------------------------------------------ files


def a_text(path):
    path.write_text("no model")


def an_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")


def a_lambda(path):
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1.0)(inputs)).save(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (a_text, "which is a file of another kind, or damaged$"),
        (lambda path: path.mkdir(), "which is a folder$"),
        (an_archive, r".*config\.json"),
        (a_lambda, ".*Lambda"),
        (lambda path: convolutions(strides=(8, 1, 2, 2, 1)).save(path), "strides 4, 8, 16 and 32, got none of stride 4"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_backbone_is_refused_in_one_line(write, message, tmp_path):
    path = tmp_path / "some.keras"
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        kfpn.build_detector(3, str(path))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(
        "backbone must have maps" if "stride" in message else "model.backbone must be a file"
    )


@pytest.fixture(scope="module")
def mine():
    """Returns a detector over a model of one's own, and that model. Tests share them and must not change them."""
    model = convolutions(preparing=True)
    detector = detector_on(model, padded=True)
    tiny.shake(detector)
    return detector, model


def test_the_detector_has_the_weights_of_the_model_itself(mine):
    detector, model = mine
    own = {id(variable) for variable in detector.get_layer("padded_features").get_layer("backbone").variables}
    assert own == {id(variable) for variable in model.variables}
    keys = [key for key in variables_of(detector) if key.startswith("backbone/")]
    assert keys[:2] == ["backbone/0000/kernel", "backbone/0001/bias"]
    assert len(keys) == len(model.weights)
    # The model can still be used for itself: its layers have one output each.
    assert model.get_layer("relu5").output is model.output


def test_a_saved_detector_finds_the_same_when_it_is_loaded(mine, tmp_path):
    detector, _ = mine
    inputs = padded_batch(((33, 70), (60, 41)), (60, 75))
    detector.save(tmp_path / "detector.keras")
    again = keras.saving.load_model(tmp_path / "detector.keras")
    assert built_settings(again)["backbone"] == "mine.keras"
    tiny.require_same_detections(detector, again, inputs)


def test_weights_travel_between_two_detectors_whose_models_were_named_otherwise(mine):
    other = detector_on(convolutions(preparing=True), padded=True)
    given = variables_of(mine[0])
    for key, variable in variables_of(other).items():
        variable.assign(given[key])
    inputs = padded_batch(((33, 70), (60, 41)), (60, 75))
    tiny.require_same_detections(mine[0], other, inputs)


# ------------------------------------------------------------------------------------------------ padding


def padded_batch(sizes, canvas, fill=37):
    images = np.full((len(sizes), *canvas, 3), fill, "float32")
    for i, (height, width) in enumerate(sizes):
        images[i, :height, :width] = tiny.image(height, width, seed=i)
    return {"images": images, "image_sizes": np.array(sizes, "int32")}


def differences(model):
    """Returns, of each level, how an image in a larger canvas differs from the image alone, relative to the largest value, by cell."""
    built = build_submodels(tiny.config(backbone="mine.keras", norm="bn"), model)
    tiny.shake(built.weights_model)
    batch = padded_batch(((96, 96),), (128, 160))
    exact = {"images": batch["images"][:, :96, :96], "image_sizes": batch["image_sizes"]}
    alone, padded = (built.padded_features(inputs, training=False) for inputs in (exact, batch))
    found = {}
    for name, own in alone.items():
        own, other = np.array(own[0]), np.array(padded[name][0])
        found[name] = np.abs(other[: len(own), : own.shape[1]] - own).max(-1) / np.abs(own).max()
    return found


def test_what_lies_in_the_padding_leaves_no_trace(mine):
    detector, _ = mine
    sizes, canvas = ((33, 70), (60, 41)), (60, 75)
    features = detector.get_layer("padded_features")
    want, got = (features(padded_batch(sizes, canvas, fill), training=False) for fill in (0, 255))
    for name, level in want.items():
        np.testing.assert_array_equal(level, got[name])
    # Cells of the padding are zero: 33 x 70 pixels are 9 x 18 cells of P2.
    assert not np.array(want["P2"])[0, 9:].any()
    assert not np.array(want["P2"])[0, :, 18:].any()


def test_how_much_padding_there_is_changes_the_image_s_border_within_a_keras_model():
    # Of C5 the last of three cells may differ: 8 cells of P2, and one more by the convolution of 3 x 3.
    maps = differences(convolutions())
    assert maps["P2"][:-9, :-9].max() < 1e-6
    print(f"largest difference of P2 at the border: {maps['P2'].max():.3f} of its largest value")
    assert 1e-4 < maps["P2"].max() < 1.0
    # A mean over the canvas carries it everywhere.
    assert differences(squeezing())["P2"].min() > 1e-6


def test_an_image_of_any_size_gives_the_same_alone_and_in_a_canvas_that_fits(mine):
    detector, model = mine
    alone = detector_on(model)
    given = variables_of(detector)
    for key, variable in variables_of(alone).items():
        variable.assign(given[key])
    batch = padded_batch(((75, 41),), (75, 41))
    for want, got in zip(
        tiny.detect(alone, batch["images"]).values(), tiny.detect(detector, batch).values(), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.slow
def test_networks_of_keras_draw_no_random_numbers():
    # EfficientNetV2's dropout would depend on the number of replicas.
    model = build_application("keras:efficientnetv2-b0")
    rates = {layer.rate for layer in layers_within(model) if isinstance(layer, keras.layers.Dropout)}
    assert rates == {0.0}
    assert len(model.non_trainable_variables) == len(model.non_trainable_weights)
