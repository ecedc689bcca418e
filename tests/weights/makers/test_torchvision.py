import json

import numpy as np
import pytest

from kfpn.weights.assign import model_config
from kfpn.weights.identify import read_trained_weights
from kfpn.weights.makers import torchvision as reader
from kfpn.weights.makers.foreign_arrays import ForeignArrays
from tests.weights.foreign import check, heads, torchvision, torchvision_backbone, trunk, write
from tests.weights.import_foreign import imported

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 75, 101, 3)).astype(np.float32)


def normalised():
    """Returns the image as torchvision's GeneralizedRCNNTransform normalises it."""
    x = (IMAGE / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return np.transpose(x, (0, 3, 1, 2))


def detector(**changes):
    units = trunk()
    return torchvision(units, heads(units, **changes))


@pytest.mark.parametrize(
    ("backbone", "old", "epsilon"),
    [("resnet18", False, 1e-5), ("resnet18", True, 0.0), ("resnet50", False, 1e-5)],
)
def test_an_imported_detector_computes_what_torchvision_computes(tmp_path, backbone, old, epsilon):
    units = trunk(backbone)
    layers = heads(units)
    trained, submodels = imported(write(tmp_path / "model.safetensors", torchvision(units, layers, old)))
    check(submodels, IMAGE, normalised(), units, layers, stride_on="3x3", epsilon=epsilon)
    assert trained.model["norm_epsilon"] == epsilon
    assert len(trained.notes) == int(old)


def test_the_names_are_those_of_torchvisions_own_fasterrcnn_resnet50_fpn(shared):
    parameters = np.load(shared("parity/torchvision_r50/weights.npz"))
    names = {name for name, _ in json.loads(str(parameters["parameters"]))} | set(parameters.files)
    names -= {"parameters", "parameters_check", "seed"}
    units = trunk("resnet50")
    assert set(torchvision(units, heads(units))) == names


@pytest.mark.parametrize(
    ("name", "legacy"), [("m.pth", False), ("m.pth", True), ("m.safetensors", False), ("m.pkl", False)]
)
def test_every_kind_of_file_gives_the_same_tensors(tmp_path, name, legacy):
    state = detector()
    expected = read_trained_weights(write(tmp_path / "expected.safetensors", state))
    trained = read_trained_weights(write(tmp_path / name, state, legacy))
    assert (trained.model, trained.kind, trained.tensors.keys()) == (
        expected.model,
        expected.kind,
        expected.tensors.keys(),
    )
    for key, tensor in trained.tensors.items():
        np.testing.assert_array_equal(tensor.value, expected.tensors[key].value, key)
        np.testing.assert_array_equal(tensor.shape, expected.tensors[key].shape, key)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_state_dict_is_read_out_of_the_wrappers_of_training_scripts(tmp_path, key, prefix):
    state = {prefix + name: value for name, value in detector().items()}
    path = write(tmp_path / "m.pkl", {"epoch": 3, key: state, "optimizer": {"lr": 0.1}, "args": None})
    assert read_trained_weights(path).kind == "torchvision Faster R-CNN resnet18 FPN, 3 classes"


def test_the_settings_are_torchvisions_and_those_that_follow_from_the_shapes():
    units = trunk(width=16)
    state = torchvision(units, heads(units, classes=5, channels=12, hidden=20, roi=5))
    trained = reader.read(ForeignArrays("m.pth", state))
    config = model_config(trained)
    assert (config.backbone, config.backbone_width, config.stride_on) == ("resnet18", 16, "3x3")
    assert (config.num_classes, config.pyramid_channels, config.head_width, config.roi_size) == (5, 12, 20, 5)
    assert (config.aligned, config.sampling_ratio, config.round_anchors, config.anchor_strides) == (
        False,
        2,
        True,
        "image",
    )
    assert (config.min_proposal_size, config.min_detection_size) == (1e-3, 0.01)
    np.testing.assert_allclose(config.pixel_mean, np.multiply(255, (0.485, 0.456, 0.406)))
    np.testing.assert_allclose(config.pixel_std, np.multiply(255, (0.229, 0.224, 0.225)))
    assert trained.sampling == {"rpn_box_beta": 1 / 9, "roi_box_beta": 1 / 9}
    assert trained.class_names is None
    assert trained.names_of_classes()[0] == ("class 1", "class 2", "class 3", "class 4", "class 5")
    assert trained.names_of_classes()[1] == (1, 2, 3, 4, 5)


def test_ninety_classes_are_the_ids_of_coco_with_those_that_coco_does_not_use():
    trained = reader.read(ForeignArrays("m.pth", detector(classes=90)))
    names, ids = trained.names_of_classes()
    assert ids == tuple(range(1, 91))
    assert (names[0], names[12], names[17], names[89]) == ("person", "stop sign", "dog", "toothbrush")
    # COCO does not use the ids 12, 26, 29, 30, 45, 66, 68, 69, 71 and 83.
    assert [i for i, name in zip(ids, names, strict=True) if name == "N/A"] == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


def test_the_classifier_and_the_counters_of_an_imagenet_backbone_are_left_out(tmp_path):
    units = trunk("resnet50")
    state = torchvision_backbone(units)
    state |= {
        name.replace("bias", "num_batches_tracked"): np.array(7) for name in list(state) if name.endswith(".bias")
    }
    state |= {"fc.weight": np.ones((10, 256)), "fc.bias": np.ones(10)}
    trained = read_trained_weights(write(tmp_path / "resnet50.safetensors", state))
    assert not trained.is_detector
    assert trained.model["backbone"] == "resnet50"
    assert trained.model["stride_on"] == "3x3"
    assert trained.notes == ("left out the classifier: fc.weight", "left out the classifier: fc.bias")
    assert {key.split("/")[0].split("_")[0] for key in trained.tensors} == {
        "stem",
        "conv2",
        "conv3",
        "conv4",
        "conv5",
    }


UNSUPPORTED = {
    "Keypoint R-CNN": lambda: detector() | {"roi_heads.keypoint_head.0.weight": np.ones((4, 4, 3, 3), np.float32)},
    "RetinaNet": lambda: {
        **{name: value for name, value in detector().items() if name.startswith("backbone.")},
        "head.classification_head.conv.0.0.weight": np.ones((4, 4, 3, 3), np.float32),
    },
    "fasterrcnn_resnet50_fpn_v2": lambda: detector() | {"backbone.fpn.inner_blocks.0.1.weight": np.ones(8, np.float32)},
    "fasterrcnn_resnet50_fpn_v2 .another box head": lambda: (
        detector() | {"roi_heads.box_head.0.0.weight": np.ones((8, 8, 3, 3), np.float32)}
    ),
    "MobileNet": lambda: {
        "backbone.body.0.0.weight": np.ones((16, 3, 3, 3), np.float32),
        "backbone.fpn.inner_blocks.0.0.weight": np.ones((8, 160, 1, 1), np.float32),
    },
    "ResNeXt": lambda: torchvision_backbone(trunk("resnet50", groups=4)),
    "RPN must have 3 anchors a cell, got 5": lambda: detector(anchors=5),
    "blocks .2, 2, 2.": lambda: {n: v for n, v in torchvision_backbone(trunk()).items() if not n.startswith("layer4")},
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_other_networks_of_torchvision_are_refused_by_name(tmp_path, what):
    path = write(tmp_path / "other.safetensors", UNSUPPORTED[what]())
    with pytest.raises(ValueError, match=rf"other\.safetensors: .*{what}") as error:
        read_trained_weights(path)
    assert "\n" not in str(error.value)


def damaged(name, change):
    state = detector()
    state[name] = change(state[name])
    return state


FC6, STEM = "roi_heads.box_head.fc6.weight", "backbone.body.conv1.weight"
DAMAGES = {
    r"1 missing: rpn\.head\.conv\.0\.0\.bias": lambda: {
        n: v for n, v in detector().items() if n != "rpn.head.conv.0.0.bias"
    },
    r"1 left over: rpn\.more \(2, 3\)": lambda: detector() | {"rpn.more": np.ones((2, 3), np.float32)},
    r"1 not usable: backbone\.body\.bn1\.bias \(not finite\)": lambda: damaged(
        "backbone.body.bn1.bias", lambda x: np.where(np.arange(8) == 3, np.nan, x).astype(np.float32)
    ),
    r"1 not usable: backbone\.body\.bn1\.weight \(int64 instead of floats\)": lambda: damaged(
        "backbone.body.bn1.weight", lambda x: np.ones(8, np.int64)
    ),
    r"square RoI features of the pyramid's 8 channels, got .*fc6\.weight \(16, 391\)": lambda: damaged(
        FC6, lambda x: x[:, :-1]
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_missing_additional_or_bad_tensor_is_named(tmp_path, message):
    with pytest.raises(ValueError, match=rf"m\.safetensors: .*{message}"):
        read_trained_weights(write(tmp_path / "m.safetensors", DAMAGES[message]()))


SCALARS = [FC6, STEM, "backbone.fpn.layer_blocks.0.0.bias", "roi_heads.box_predictor.bbox_pred.weight"]


@pytest.mark.parametrize("name", SCALARS)
def test_a_number_in_place_of_a_tensor_is_refused(tmp_path, name):
    path = write(tmp_path / "m.safetensors", detector() | {name: np.array(3.0, np.float32)})
    with pytest.raises(ValueError, match=r"m\.safetensors: "):
        imported(path)
