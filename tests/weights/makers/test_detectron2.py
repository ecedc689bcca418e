import json

import numpy as np
import pytest

from kfpn.weights.assign import model_config
from kfpn.weights.identify import read_trained_weights
from kfpn.weights.makers import detectron2 as reader
from kfpn.weights.makers.foreign_arrays import ForeignArrays
from tests.weights.foreign import (
    box_head,
    cascade,
    cell_anchors,
    check,
    detectron2,
    detectron2_backbone,
    detectron2_cascade,
    heads,
    mask_head,
    near,
    trunk,
    write,
)
from tests.weights.import_foreign import imported

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 75, 101, 3)).astype(np.float32)
BGR_MEAN = (103.53, 116.28, 123.675)
BGR = {"pixel_mean": BGR_MEAN, "pixel_std": (1, 1, 1)}
RGB = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}


def nchw(x):
    return np.transpose(x, (0, 3, 1, 2))


def detector(units=None, classes=3, anchors=3, **buffers):
    units = units or trunk()
    return detectron2(units, heads(units, classes, background_first=False, anchors=anchors), **buffers)


@pytest.mark.parametrize(
    ("backbone", "buffers", "notes"), [("resnet18", {}, 1), ("resnet18", BGR, 0), ("resnet50", BGR, 0)]
)
def test_an_imported_detector_computes_what_detectron2_computes(tmp_path, backbone, buffers, notes):
    units = trunk(backbone)
    layers = heads(units, background_first=False)
    content = {"model": detectron2(units, layers, **buffers), "__author__": "Detectron2 Model Zoo"}
    trained, submodels = imported(write(tmp_path / "model_final.pkl", content))
    check(submodels, IMAGE, nchw(IMAGE[..., ::-1] - BGR_MEAN), units, layers, False, stride_on="1x1")
    assert len(trained.notes) == notes


def test_a_detector_from_a_torchvision_backbone_takes_rgb_and_has_its_strides_on_the_3x3(tmp_path):
    units = trunk("resnet50")
    layers = heads(units, background_first=False)
    trained, submodels = imported(write(tmp_path / "m.pth", {"model": detectron2(units, layers, **RGB)}))
    x = (IMAGE - RGB["pixel_mean"]) / RGB["pixel_std"]
    check(submodels, IMAGE, nchw(x), units, layers, False, stride_on="3x3")
    assert "strides on its 3x3" in trained.notes[0]


def test_the_deviation_is_turned_from_bgr_to_rgb_as_the_mean_is(tmp_path):
    units = trunk()
    layers = heads(units, background_first=False)
    std = (57.375, 57.12, 58.395)
    state = detectron2(units, layers, pixel_mean=BGR_MEAN, pixel_std=std)
    trained, submodels = imported(write(tmp_path / "m.pkl", {"model": state}))
    check(submodels, IMAGE, nchw((IMAGE[..., ::-1] - BGR_MEAN) / std), units, layers, False)
    np.testing.assert_allclose(trained.model["pixel_std"], std[::-1], rtol=1e-4)


def test_the_names_are_those_of_detectron2s_own_faster_rcnn_r_50_fpn(shared):
    file = np.load(shared("parity/detectron2_r50/weights.npz"))
    names = {name for name, _ in json.loads(str(file["parameters"]))} | set(file.files)
    assert set(detector(trunk("resnet50"))) == names - {"parameters", "parameters_check", "seed"}


def test_the_settings_are_detectron2s():
    trained = reader.read(ForeignArrays("m.pkl", detector(classes=80)))
    config = model_config(trained)
    assert (config.stride_on, config.aligned, config.sampling_ratio) == ("1x1", True, 0)
    assert (config.round_anchors, config.anchor_strides) == (False, "level")
    assert (config.pre_nms_train, config.post_nms_train, config.post_nms_test) == (2000, 1000, 1000)
    np.testing.assert_allclose(config.pixel_mean, BGR_MEAN[::-1])
    assert config.pixel_std == (1.0, 1.0, 1.0)
    assert trained.sampling == {"rpn_box_beta": 0.0, "roi_box_beta": 0.0}
    names, ids = trained.names_of_classes()
    assert len(names) == 80
    assert (ids[10:13], ids[-1]) == ((11, 13, 14), 90)  # COCO has no id 12
    assert (names[0], names[11], names[-1]) == ("person", "stop sign", "toothbrush")
    assert reader.read(ForeignArrays("m.pkl", detector())).class_names is None


def test_the_cell_anchors_in_a_file_give_the_sizes_and_ratios():
    sizes, ratios = (20, 40, 80, 160, 320), (0.25, 0.5, 1, 2)
    state = detector(anchors=4, cells=cell_anchors([[size] for size in sizes], ratios))
    config = model_config(reader.read(ForeignArrays("m.pkl", state)))
    np.testing.assert_allclose(config.anchor_sizes, sizes, rtol=1e-4)
    np.testing.assert_allclose(config.aspect_ratios, ratios, rtol=1e-4)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (cell_anchors([[32], [64], [128], [256]], (0.5, 1, 2)), "cell anchors of five levels"),
        (cell_anchors([[32, 40]] * 5, (0.5, 1, 2)), "one size a level"),
        ([*cell_anchors([[32]] * 4, (0.5, 1, 2)), *cell_anchors([[32]], (1, 2, 3))], "the same ratios on all"),
        (cell_anchors([[32]] * 5, (1,)), "the RPN must have 1 anchors a cell, got 3"),
    ],
)
def test_anchors_that_kfpn_does_not_have_are_refused(cells, message):
    with pytest.raises(ValueError, match=rf"m\.pkl: .*{message}"):
        reader.read(ForeignArrays("m.pkl", detector(cells=cells)))


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_a_converted_torchvision_backbone_keeps_rgb_and_its_strides(tmp_path, suffix):
    units = trunk("resnet50")
    state = detectron2_backbone(units) | {"stem.fc.weight": np.ones((5, 8)), "stem.fc.bias": np.ones(5)}
    content = {"model": state, "__author__": "torchvision", "matching_heuristics": True}
    trained = read_trained_weights(write(tmp_path / f"r50{suffix}", content))
    assert (trained.model["stride_on"], trained.model["pixel_std"]) == ("3x3", (58.395, 57.12, 57.375))
    kernel = np.transpose(units[1, 0, 1]["w"], (2, 3, 1, 0))
    np.testing.assert_array_equal(trained.tensors["stem_conv/kernel"].value, kernel)
    other = read_trained_weights(write(tmp_path / f"msra{suffix}", {"model": state, "__author__": "Caffe2"}))
    np.testing.assert_array_equal(other.tensors["stem_conv/kernel"].value, kernel[:, :, ::-1])
    assert other.model["stride_on"] == "1x1"


def cascade_state(classes=3, masks=False, **buffers):
    units = trunk()
    layers = heads(units, classes, background_first=False) | (mask_head(classes) if masks else {})
    stages = cascade(units, classes)
    return detectron2_cascade(units, layers, stages, **buffers), units, layers | stages[0], stages


def test_an_imported_cascade_computes_in_every_stage_what_detectron2_computes(tmp_path):
    state, units, layers, stages = cascade_state(masks=True, **BGR)
    trained, submodels = imported(write(tmp_path / "model_final.pkl", {"model": state}))
    assert trained.kind == "detectron2 Cascade Mask R-CNN resnet18 FPN, 3 classes"
    assert list(submodels.heads) == ["box", "box_2", "box_3", "mask"]
    check(submodels, IMAGE, nchw(IMAGE[..., ::-1] - BGR_MEAN), units, layers, False, stride_on="1x1")
    rois = np.random.default_rng(4).normal(size=(5, 8, 7, 7)).astype(np.float32)
    for name, stage in zip(("box", "box_2", "box_3"), stages, strict=True):
        logits, deltas = box_head(stage, rois)
        outputs = submodels.heads[name](np.transpose(rois, (0, 2, 3, 1)))
        near(outputs["logits"], logits)
        near(outputs["deltas"], deltas[:, None, [1, 0, 3, 2]])


def test_a_cascade_has_its_own_settings_and_may_be_without_masks():
    config = model_config(reader.read(ForeignArrays("m.pkl", cascade_state(80)[0])))
    assert (config.cascade, config.mask, config.post_nms_train, config.num_classes) == (True, False, 2000, 80)
    trained = reader.read(ForeignArrays("m.pkl", cascade_state(80, masks=True)[0]))
    assert model_config(trained).mask
    assert trained.sampling == {"rpn_box_beta": 0.0, "roi_box_beta": 0.0, "mask_targets": "polygons"}


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("box_predictor.1.bbox_pred.weight", None, r"missing: roi_heads\.box_predictor\.1\.bbox_pred\.weight"),
        ("box_head.3.fc1.weight", 16, r"left over: roi_heads\.box_head\.3\.fc1\.weight"),
        ("box_predictor.2.bbox_pred.bias", 12, r"2\.bbox_pred\.bias must have 4 values, one box for all .*, got 12"),
    ],
)
def test_a_cascade_that_is_not_whole_or_of_another_form_is_refused(name, rows, message):
    state = cascade_state()[0]
    name = f"roi_heads.{name}"
    if rows is None:
        del state[name]
    else:
        state[name] = np.ones((rows, 16) if name.endswith("weight") else rows, np.float32)
    with pytest.raises(ValueError, match=rf"m\.pkl: .*{message}"):
        reader.read(ForeignArrays("m.pkl", state))


ONE = np.ones((4, 4, 3, 3), np.float32)


def without_pyramid(**more):
    renamed = {name.replace("backbone.bottom_up.", "backbone."): value for name, value in detector().items()}
    return {name: value for name, value in renamed.items() if ".fpn_" not in name} | more


UNSUPPORTED = {
    "Keypoint R-CNN": lambda: detector() | {"roi_heads.keypoint_head.conv_fcn1.weight": ONE},
    "Cascade R-CNN with convolutions": lambda: detector() | {"roi_heads.box_head.0.conv1.weight": ONE},
    "RetinaNet": lambda: {
        **{name: value for name, value in detector().items() if name.startswith("backbone.")},
        "head.cls_subnet.0.weight": ONE,
    },
    "C4": lambda: without_pyramid(**{"roi_heads.res5.0.conv1.weight": ONE}),
    "without a pyramid .DC5": without_pyramid,
    "ResNeXt": lambda: detector(trunk("resnet50", groups=4)),
    "class-agnostic|one box for all classes": lambda: {
        name: value[:4] if ".bbox_pred." in name else value for name, value in detector(classes=80).items()
    },
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_other_networks_of_detectron2_are_refused_by_name(tmp_path, what):
    path = write(tmp_path / "other.pkl", {"model": UNSUPPORTED[what]()})
    with pytest.raises(ValueError, match=rf"other\.pkl: .*({what})") as error:
        read_trained_weights(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("roi_heads.box_predictor.cls_score.bias", "1 missing"),
        ("backbone.bottom_up.res3.0.shortcut.norm.running_var", "1 missing"),
        ("backbone.fpn_lateral4.weight", "1 missing"),
    ],
)
def test_the_error_for_a_missing_tensor_names_only_this_tensor(name, message):
    state = detector()
    del state[name]
    with pytest.raises(ValueError, match=rf"m\.pkl: tensors must fit the network, got {message}: {name}$"):
        reader.read(ForeignArrays("m.pkl", state))
