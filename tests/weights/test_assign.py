import warnings

import keras
import numpy as np
import pytest

import kfpn
from kfpn.modeling.submodels import build_submodels
from kfpn.weights.assign import model_config
from kfpn.weights.built_detector import variables_of
from kfpn.weights.identify import read_trained_weights
from tests.weights.foreign import (
    caffe2_backbone,
    cascade,
    detectron2,
    detectron2_cascade,
    heads,
    mask_head,
    torchvision,
    torchvision_backbone,
    trunk,
    write,
)

UNITS = trunk()


def state(**changes):
    return torchvision(UNITS, heads(UNITS, **changes))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("load") / "m.safetensors", state())


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Writes a detector of torchvision for the 90 ids of COCO, whose names are known."""
    return write(tmp_path_factory.mktemp("load") / "coco.safetensors", state(classes=90))


@pytest.fixture(scope="module")
def loaded_coco(coco):
    return values(kfpn.load_detector(coco))


@pytest.fixture(scope="module")
def built(file):
    return kfpn.build_detector(**vars(model_config(read_trained_weights(file))))


@pytest.fixture
def model(built):
    """Returns a detector of 3 classes with the settings of `file` and random weights."""
    rng = np.random.default_rng(9)
    for variable in variables_of(built).values():
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return built


def values(model):
    return {key: np.array(variable) for key, variable in variables_of(model).items()}


def changed(before, model):
    return {key for key, value in values(model).items() if not np.array_equal(value, before[key])}


def refused(model, source, message, **options):
    before = values(model)
    with pytest.raises(ValueError, match=message) as error:
        kfpn.load_weights(model, source, **options)
    assert changed(before, model) == set()
    return str(error.value)


@pytest.mark.parametrize("padded", [False, True])
def test_weights_loaded_into_a_built_detector_are_those_of_load_detector(file, padded):
    loaded = kfpn.load_detector(file, padded)
    built = kfpn.build_detector(**vars(model_config(read_trained_weights(file))), padded=padded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kfpn.load_weights(built, file)
    expected = values(loaded)
    assert changed(expected, built) == set()
    assert (loaded.class_names, loaded.category_ids) == (("class 1", "class 2", "class 3"), (1, 2, 3))
    if not padded:
        return
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    inputs = {"images": image, "image_sizes": np.array([[60, 90]], np.int32)} if padded else image
    for name, value in loaded(inputs).items():
        np.testing.assert_array_equal(np.array(built(inputs)[name]), np.array(value), name)


# ------------------------------------------------------------------------------------------------ all or nothing


def test_a_tensor_of_another_shape_is_refused_and_changes_no_weight(model, tmp_path):
    path = write(tmp_path / "wide.safetensors", state(hidden=20))
    message = refused(model, path, r"tensors must fit the network, got 6 of another shape: ")
    assert "roi_heads.box_head.fc6.weight (20, 392) instead of (16, 392) for head_fc1/kernel" in message
    path = write(tmp_path / "deep.safetensors", state(channels=12))
    message = refused(model, path, "of another shape")
    assert "backbone.fpn.inner_blocks.0.0.weight (12, 8, 1, 1) instead of (8, 8, 1, 1) for lateral_2/kernel" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("roi_heads.box_predictor.bbox_pred.bias"),
            "1 missing: roi_heads.box_predictor.bbox_pred.bias",
        ),
        (lambda s: s.update({"rpn.head.more": np.ones(3, np.float32)}), r"1 left over: rpn\.head\.more \(3,\)"),
        (lambda s: s.update({"backbone.body.bn1.weight": np.full(8, np.nan)}), r"1 not usable: .*\(not finite\)"),
        (lambda s: s.update({"backbone.body.bn1.weight": np.full(8, 1e300)}), r"1 not usable: .*\(not finite\)"),
        (
            lambda s: s.update({"backbone.body.bn1.bias": np.ones(8, np.int32)}),
            r"1 not usable: .*\(int32 instead of floats\)",
        ),
        (lambda s: s.update({"backbone.body.bn1.bias": np.ones(9, np.float32)}), r"bn1\.bias \(9,\) instead of \(8,\)"),
    ],
)
def test_a_bad_tensor_is_refused_and_changes_no_weight(model, tmp_path, change, message):
    bad = state()
    change(bad)
    refused(model, write(tmp_path / "bad.safetensors", bad), message)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("pixel_mean", {"pixel_mean": (0.0, 0.0, 0.0)}),
        ("pixel_std", {"pixel_std": (1.0, 1.0, 1.0)}),
        ("backbone", {"backbone": "resnet34"}),
        ("norm", {"norm": "gn", "backbone_width": 32}),
        ("stride_on", {"backbone": "resnet50", "stride_on": "1x1"}),
    ],
)
def test_a_model_with_another_setting_is_refused_by_the_setting(tmp_path, name, other):
    units = trunk(other.get("backbone") if name == "stride_on" else "resnet18", other.get("backbone_width", 8))
    path = write(tmp_path / "m.safetensors", torchvision(units, heads(units)))
    model = kfpn.build_detector(**{**vars(model_config(read_trained_weights(path))), **other})
    message = refused(model, path, rf"m\.safetensors: .*\b{name}\b")
    assert len(message) < 1000


def test_settings_that_may_differ_cause_one_warning(file):
    config = vars(model_config(read_trained_weights(file))) | {"norm_epsilon": 1e-3, "aligned": True}
    model = kfpn.build_detector(**config)
    with pytest.warns(UserWarning, match=r"trained with norm_epsilon=1e-05 .*, aligned=False") as caught:
        kfpn.load_weights(model, file)
    assert len(caught) == 1
    assert changed(values(kfpn.load_detector(file)), model) == set()


@pytest.mark.parametrize("make", [lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])])
def test_a_model_that_is_no_detector_is_refused(file, make):
    refused(make(), file, "model must be")


# ------------------------------------------------------------------------------------------------ classes

HEAD = {"head_logits/kernel", "head_logits/bias", "head_deltas/kernel", "head_deltas/bias"}


@pytest.mark.parametrize("names", [None, ("cat", "dog", "unicorn")])
def test_with_other_classes_all_weights_but_the_predictors_are_loaded(model, coco, loaded_coco, names):
    before = values(model)
    with pytest.warns(UserWarning, match=r"predictor .* left fresh: 90 classes there, 3 here") as caught:
        kfpn.load_weights(model, coco, names)
    assert len(caught) == 1
    assert changed(before, model) == before.keys() - HEAD
    assert changed(loaded_coco, model) == HEAD


def test_with_other_class_names_the_predictors_weights_are_not_loaded(coco):
    model = kfpn.build_detector(**vars(model_config(read_trained_weights(coco))))
    before = values(model)
    with pytest.warns(UserWarning, match="left fresh: the classes have other names"):
        kfpn.load_weights(model, coco, [f"bird {i}" for i in range(90)])
    assert changed(before, model) == before.keys() - HEAD


def test_the_predictor_takes_the_weights_of_classes_by_their_names(model, coco, loaded_coco):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kfpn.load_weights(model, coco, ("dog", "person", "toothbrush"))
    (logits, logit_biases), (deltas, delta_biases) = (heads(UNITS, classes=90)[part] for part in ("cls", "box"))
    ids = [18, 1, 90]  # ids of COCO; row 0 is the background
    after = values(model)
    np.testing.assert_array_equal(after["head_logits/kernel"], logits[[*ids, 0]].T)
    np.testing.assert_array_equal(after["head_logits/bias"], logit_biases[[*ids, 0]])
    yxyx = [4 * i + k for i in ids for k in (1, 0, 3, 2)]  # of dx, dy, dw, dh
    np.testing.assert_array_equal(after["head_deltas/kernel"], deltas[yxyx].T)
    np.testing.assert_array_equal(after["head_deltas/bias"], delta_biases[yxyx])
    assert changed(loaded_coco, model) == HEAD


def test_the_weights_of_a_name_that_two_labels_have_are_not_taken(model, coco):
    with pytest.warns(UserWarning, match="left fresh"):
        kfpn.load_weights(model, coco, ("dog", "person", "N/A"))


def test_the_number_of_names_must_be_the_number_of_the_models_classes(model, coco):
    refused(model, coco, "class_names must be 3", class_names=("dog", "person"))


def test_one_box_for_all_classes_is_refused(model, tmp_path):
    content = detectron2(UNITS, heads(UNITS, classes=80, background_first=False))
    agnostic = {name: value[:4] if ".bbox_pred." in name else value for name, value in content.items()}
    config = vars(model_config(read_trained_weights(write(tmp_path / "d2.pkl", content)))) | {"num_classes": 3}
    path = write(tmp_path / "agnostic.pkl", agnostic)
    refused(
        kfpn.build_detector(**config),
        path,
        "class-agnostic|one box for all classes",
        class_names=("dog", "person", "cat"),
    )


# ------------------------------------------------------------------------------------------------ masks

MASKS = {"mask_logits/kernel", "mask_logits/bias"}


def with_masks(path, classes=3, masks=None, seed=0):
    """Writes a Mask R-CNN of torchvision; the background has a mask as well."""
    return write(path, torchvision(UNITS, heads(UNITS, classes, seed=seed) | mask_head(masks or classes + 1)))


def mask_head_of(model):
    return {key for key in values(model) if key.startswith("mask_")}


def test_weights_with_masks_load_into_a_detector_without_and_one_line_says_so(model, tmp_path):
    path = with_masks(tmp_path / "m.safetensors")
    expected = values(kfpn.load_detector(path))
    with pytest.warns(
        UserWarning, match=r"the mask head of .*m\.safetensors is left out: the model has none"
    ) as caught:
        kfpn.load_weights(model, path)
    assert len(caught) == 1
    assert mask_head_of(model) == set()
    assert changed(expected, model) == set()


def test_weights_without_masks_leave_a_mask_head_fresh_and_one_line_says_so(file):
    model = kfpn.build_detector(**vars(model_config(read_trained_weights(file))) | {"mask": True, "mask_channels": 6})
    before = values(model)
    with pytest.warns(UserWarning, match=r"the mask head is left fresh: .*m\.safetensors has none") as caught:
        kfpn.load_weights(model, file)
    assert len(caught) == 1
    assert len(mask_head_of(model)) == 12
    fresh = mask_head_of(model)
    assert {key for key in fresh if np.array_equal(values(model)[key], before[key])} == fresh
    assert changed(values(kfpn.load_detector(file)), _box_part(model)) == set()


def _box_part(model):
    """Returns the part of a detector that one without masks has as well."""
    return keras.Model(model.input, {name: model.output[name] for name in ("boxes", "scores", "labels")})


@pytest.mark.parametrize("masks", [None, 1], ids=["each", "agnostic"])
def test_masks_are_taken_by_the_names_of_their_classes(tmp_path, masks):
    path = with_masks(tmp_path / "coco.safetensors", 90, masks)
    config = vars(model_config(read_trained_weights(path))) | {"num_classes": 3}
    model = kfpn.build_detector(**config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kfpn.load_weights(model, path, ("dog", "person", "toothbrush"))
    kernel, bias = mask_head(masks or 91)["masks"]
    rows = [18, 1, 90] if masks is None else [0]  # ids of COCO; mask 0 of 91 is the background's
    np.testing.assert_array_equal(values(model)["mask_logits/kernel"][0, 0], kernel[rows, :, 0, 0].T)
    np.testing.assert_array_equal(values(model)["mask_logits/bias"], bias[rows])


@pytest.mark.parametrize(("masks", "fresh"), [(None, HEAD | MASKS), (1, HEAD)], ids=["each", "agnostic"])
def test_with_other_classes_the_masks_of_each_class_start_fresh_and_one_for_all_is_kept(tmp_path, masks, fresh):
    path = with_masks(tmp_path / "coco.safetensors", 90, masks)
    model = kfpn.build_detector(**vars(model_config(read_trained_weights(path))) | {"num_classes": 3})
    before, there = values(model), values(kfpn.load_detector(path))
    what = "class logits and box deltas, masks" if masks is None else "class logits and box deltas"
    with pytest.warns(UserWarning, match=rf"predictor \({what}\) .* left fresh: 90 classes there, 3 here") as caught:
        kfpn.load_weights(model, path)
    assert len(caught) == 1
    after = values(model)
    assert {key for key, value in after.items() if not np.array_equal(value, there[key])} == fresh
    assert all(np.array_equal(after[key], before[key]) for key in fresh)


def test_a_mask_head_of_another_width_is_refused(tmp_path):
    path = with_masks(tmp_path / "m.safetensors")
    model = kfpn.build_detector(**vars(model_config(read_trained_weights(path))) | {"mask_channels": 7})
    assert "mask_conv1/kernel" in refused(model, path, "of another shape")


# ------------------------------------------------------------------------------------------------ cascades


LATER = {
    f"{layer}_{stage}/{part}"
    for layer in ("head_fc1", "head_fc2", "head_logits", "head_deltas")
    for stage in (2, 3)
    for part in ("kernel", "bias")
}
DELTAS = {"head_deltas/kernel", "head_deltas/bias"}


def with_cascade(path, classes=3):
    """Writes a Cascade R-CNN of detectron2."""
    layers = heads(UNITS, classes, background_first=False)
    return write(path, detectron2_cascade(UNITS, layers, cascade(UNITS, classes)))


def plain_twin(path, classes=3):
    """Writes a Faster R-CNN of detectron2 with the first stage of `with_cascade`, but for its box deltas."""
    layers = heads(UNITS, classes, background_first=False)
    first = {part: layer for part, layer in cascade(UNITS, classes)[0].items() if part != "box"}
    return write(path, detectron2(UNITS, layers | first))


@pytest.mark.filterwarnings("ignore:.*the file doesn't hold pixel_mean")
def test_weights_without_a_cascade_give_its_first_stage_and_one_line_says_what_stays_fresh(tmp_path):
    plain, whole = plain_twin(tmp_path / "plain.safetensors"), with_cascade(tmp_path / "cascade.safetensors")
    model = kfpn.load_detector(whole)
    before = values(model)
    with pytest.warns(
        UserWarning,
        match=r"the box deltas and stages 2 and 3 of the cascade are left fresh: .*plain\.safetensors is a Faster R-CNN",
    ) as caught:
        kfpn.load_weights(model, plain)
    assert len([one for one in caught if "fresh" in str(one.message)]) == 1
    # All that the two files share is the same in both, so nothing has changed.
    assert changed(before, model) == set()


@pytest.mark.filterwarnings("ignore:.*the file doesn't hold pixel_mean")
def test_a_cascade_gives_a_detector_with_one_box_head_its_first_stage_and_one_line_says_so(tmp_path):
    plain, whole = plain_twin(tmp_path / "plain.safetensors"), with_cascade(tmp_path / "cascade.safetensors")
    model, expected = kfpn.load_detector(plain), values(kfpn.load_detector(whole))
    rng, fresh = np.random.default_rng(9), {}
    for key, variable in variables_of(model).items():
        fresh[key] = rng.uniform(0.5, 1.5, variable.shape).astype(np.float32)
        variable.assign(fresh[key])
    with pytest.warns(
        UserWarning,
        match=r"box deltas are left fresh, and stages 2 and 3 of .*cascade\.safetensors, a Cascade R-CNN, are left out",
    ):
        kfpn.load_weights(model, whole)
    after = values(model)
    assert {key for key, value in after.items() if np.array_equal(value, fresh[key])} == DELTAS
    assert {key for key in after if not np.array_equal(after[key], expected[key])} == DELTAS
    assert expected.keys() - after.keys() == LATER


@pytest.mark.filterwarnings("ignore:.*the file doesn't hold pixel_mean")
def test_the_classes_of_every_stage_are_taken_by_their_names(tmp_path):
    path = with_cascade(tmp_path / "coco.safetensors", 80)
    config = vars(model_config(read_trained_weights(path))) | {"num_classes": 2}
    model = kfpn.build_detector(**config)
    kfpn.load_weights(model, path, ("stop sign", "person"))
    for ending, stage in zip(("", "_2", "_3"), cascade(UNITS, 80), strict=True):
        (kernel, bias), boxes = stage["cls"], stage["box"][0]
        np.testing.assert_array_equal(values(model)[f"head_logits{ending}/kernel"], kernel[[11, 0, 80]].T)
        np.testing.assert_array_equal(values(model)[f"head_logits{ending}/bias"], bias[[11, 0, 80]])
        np.testing.assert_array_equal(values(model)[f"head_deltas{ending}/kernel"], boxes[[1, 0, 3, 2]].T)
    before = values(model)
    with pytest.warns(UserWarning, match=r"predictor \(class logits\) .* left fresh: 80 classes there, 2 here"):
        kfpn.load_weights(model, path)
    logits = {f"head_logits{ending}/{part}" for ending in ("", "_2", "_3") for part in ("kernel", "bias")}
    assert all(np.array_equal(values(model)[key], before[key]) for key in logits)


# ------------------------------------------------------------------------------------------------ backbones


def test_loading_a_backbone_changes_only_the_backbone(model, tmp_path):
    units, before = trunk(seed=5), values(model)
    path = write(
        tmp_path / "r18.safetensors", torchvision_backbone(units) | {"fc.weight": np.ones((9, 64), np.float32)}
    )
    with pytest.warns(UserWarning, match=r"is a backbone: pyramid, RPN and heads are left fresh") as caught:
        kfpn.load_weights(model, path)
    assert len(caught) == 1
    assert changed(before, model) == {key for key in before if key.startswith(("stem_", "conv"))}
    expected = np.transpose(units[5, 1, 2]["w"], (2, 3, 1, 0))
    np.testing.assert_array_equal(values(model)["conv5_2_2_conv/kernel"], expected)
    with pytest.raises(ValueError, match="must be a detector, got torchvision resnet18, ImageNet"):
        kfpn.load_detector(path)


def test_a_backbone_of_other_settings_is_refused(model, tmp_path):
    path = write(tmp_path / "R-50.pkl", caffe2_backbone(trunk("resnet50")))
    message = refused(model, path, r"R-50\.pkl: the model must be built as these weights were trained")
    assert "backbone='resnet50'" in message
    assert "pixel_std=(1.0, 1.0, 1.0)" in message


def test_submodels_and_their_weights_model_take_weights_as_well(file):
    expected = values(kfpn.load_detector(file))
    submodels = build_submodels(model_config(read_trained_weights(file)))
    for part in (submodels, submodels.weights_model):
        for variable in variables_of(submodels).values():
            variable.assign(variable * 0 + 1)
        kfpn.load_weights(part, file)
        assert changed(expected, submodels) == set()


# ------------------------------------------------------------------------------------------------ pyramids


@pytest.mark.parametrize(
    ("other", "message"),
    [
        # Both pyramids have the same variables. They differ only in the setting.
        ({"pyramid": "bottom_up"}, "with pyramid='fpn' \\(the model has 'bottom_up'\\)"),
        ({"upsampling": "bilinear"}, "with upsampling='nearest' \\(the model has 'bilinear'\\)"),
        ({"merge": "average"}, "with merge='sum' \\(the model has 'average'\\)"),
        ({"pyramid": "c4"}, "with pyramid='fpn' \\(the model has 'c4'\\)"),
    ],
)
def test_a_detector_does_not_load_into_another_pyramid(file, other, message):
    model = kfpn.build_detector(**{**vars(model_config(read_trained_weights(file))), **other})
    refused(model, file, message)


@pytest.mark.parametrize("pyramid", ["bottom_up", "top_down", "finest", "c4", "c5"])
def test_a_backbone_loads_into_every_pyramid(pyramid, tmp_path):
    path = write(tmp_path / "backbone.safetensors", torchvision_backbone(UNITS))
    settings = {**vars(model_config(read_trained_weights(path))), "num_classes": 3, "head_width": 8, "pyramid": pyramid}
    model = kfpn.build_detector(**settings)
    with pytest.warns(UserWarning, match="is a backbone"):
        kfpn.load_weights(model, path)
    for key, tensor in read_trained_weights(path).tensors.items():
        np.testing.assert_array_equal(np.array(variables_of(model)[key]), tensor.value, key)
