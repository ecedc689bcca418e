import dataclasses
import json

import numpy as np
import pytest

import kfpn
from kfpn.cli import command_line as cli
from kfpn.weights.assign import model_config
from kfpn.weights.built_detector import variables_of
from kfpn.weights.identify import read_trained_weights
from tests.weights.foreign import detectron2, detectron2_backbone, heads, torchvision, trunk, write

UNITS = trunk()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Writes the weights of a detector of three classes without names."""
    return write(tmp_path_factory.mktemp("importing") / "m.safetensors", torchvision(UNITS, heads(UNITS)))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Writes the weights of a detector of 80 classes. They are COCO's unless other names are given."""
    content = {"model": detectron2(UNITS, heads(UNITS, classes=80, background_first=False))}
    return write(tmp_path_factory.mktemp("importing") / "coco.pkl", content)


def values(model):
    return {key: np.array(variable) for key, variable in variables_of(model).items()}


def equal_weights(model, other):
    left, right = values(model), values(other)
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


# ------------------------------------------------------------------------------------------------ import_weights


def test_an_imported_work_directory_has_the_detections_of_the_original(file, tmp_path):
    trained = kfpn.import_weights(file, tmp_path / "new" / "run")
    assert {path.name for path in (tmp_path / "new" / "run").iterdir()} == {
        "config.json", "classes.json", "detector.weights.h5",
    }  # fmt: skip
    imported, original = kfpn.load_detector(tmp_path / "new" / "run"), kfpn.load_detector(file)
    assert (imported.class_names, imported.category_ids) == (("class 1", "class 2", "class 3"), (1, 2, 3))
    assert equal_weights(imported, original)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    outputs, expected = imported(image), original(image)
    assert int(expected["num_detections"][0]) > 0
    for name in expected:
        np.testing.assert_array_equal(np.array(outputs[name]), np.array(expected[name]), name)
    config = config_of(tmp_path / "new" / "run")
    assert config["init"] == str(file)
    assert config["sampling"]["roi_box_beta"] == pytest.approx(1 / 9)
    assert config["model"] == json.loads(json.dumps(dataclasses.asdict(model_config(trained))))


@pytest.mark.parametrize("name", ["config.json", "detector.weights.h5"])
def test_a_folder_that_holds_a_run_is_not_changed(file, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="output must be a folder without a run"):
        kfpn.import_weights(file, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.filterwarnings("error::UserWarning", "ignore:.*the file doesn.t hold pixel_mean")
@pytest.mark.parametrize("turn", [0, 1])
def test_given_names_name_the_labels_in_their_order_and_change_no_weight(coco, tmp_path, turn):
    # The names are new ones, and COCO's in another order. In both cases no row moves, and none stays random.
    cocos = read_trained_weights(coco).class_names
    names = [f"screw {i}" for i in range(80)] if turn == 0 else [*cocos[1:], cocos[0]]
    kfpn.import_weights(coco, tmp_path, class_names=names)
    imported = kfpn.load_detector(tmp_path)
    assert (imported.class_names, imported.category_ids) == (tuple(names), tuple(range(1, 81)))
    assert equal_weights(imported, kfpn.load_detector(coco))


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_work_directory_is_imported_with_its_classes_and_settings(coco, tmp_path):
    kfpn.import_weights(coco, tmp_path / "one", model_config(read_trained_weights(coco), score_threshold=0.2))
    settings = config_of(tmp_path / "one")
    settings["input"] |= {"short_side": 192, "long_side": 256}
    (tmp_path / "one" / "config.json").write_text(json.dumps(settings))
    kfpn.import_weights(tmp_path / "one", tmp_path / "two")
    one, two = read_trained_weights(tmp_path / "one"), read_trained_weights(tmp_path / "two")
    assert (two.class_names, two.category_ids) == (one.class_names, one.category_ids)
    assert two.category_ids[-1] == 90
    assert two.tensors.keys() == one.tensors.keys()
    for key, tensor in two.tensors.items():
        np.testing.assert_array_equal(tensor.value, one.tensors[key].value, key)
    for section in ("model", "sampling", "input"):
        assert config_of(tmp_path / "two")[section] == settings[section]


def test_a_failed_import_leaves_nothing(file, tmp_path):
    trained = read_trained_weights(file)
    with pytest.raises(ValueError, match="class_names must be 3, one a class, got 2"):
        kfpn.import_weights(file, tmp_path / "run", class_names=("a", "b"))
    with pytest.raises(ValueError, match=r"pixel_std=.* \(the model has \(1\.0, 1\.0, 1\.0\)\)"):
        kfpn.import_weights(trained, tmp_path / "run", model_config(trained, pixel_std=(1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="of another shape"):
        kfpn.import_weights(trained, tmp_path / "run", model_config(trained, head_width=17))
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------ command line


def test_the_command_makes_the_work_directory_with_names_and_options(file, tmp_path, capsys):
    options = [
        "--output",
        str(tmp_path / "run"),
        "--class-names",
        "cat",
        "dog",
        "cow",
        "--model.score-threshold",
        "0.3",
    ]
    assert cli.main(["import-weights", str(file), *options]) == 0
    assert "torchvision Faster R-CNN resnet18 FPN, 3 classes" in capsys.readouterr().out
    model = config_of(tmp_path / "run")["model"]
    assert (model["score_threshold"], model["num_classes"], model["aligned"]) == (0.3, 3, False)
    assert kfpn.load_detector(tmp_path / "run").class_names == ("cat", "dog", "cow")


@pytest.mark.parametrize(
    "order",
    [
        "--output OUT FILE",
        "--output=OUT FILE",
        "--model.nms-iou 0.4 --output OUT FILE",
        "--model.round-anchors --output OUT FILE",
        "--output OUT --model.round-anchors FILE",
        "--class-names cat dog cow --output OUT FILE",
        "--output OUT FILE --class-names cat dog cow",
    ],
)
def test_the_source_may_stand_anywhere_among_the_options(file, monkeypatch, order):
    import kfpn.weights.import_weights

    seen = []
    monkeypatch.setattr(
        kfpn.weights.import_weights, "import_weights", lambda *args: seen.extend(args) or read_trained_weights(file)
    )
    assert cli.main(["import-weights", *(word.replace("FILE", str(file)) for word in order.split())]) == 0
    source, output, model, names = seen
    assert (source, output) == (str(file), "OUT")
    assert (model.stride_on, model.num_classes) == ("3x3", 3)
    assert names == (("cat", "dog", "cow") if "cat" in order else None)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "does not exist"),
        (b"", [], "is empty"),
        (b"<html>sign in</html>", [], "is a web page"),
        ({"a": np.ones(3)}, [], "must hold weights of a known kind"),
        (
            {"model": detectron2(UNITS, heads(UNITS, background_first=False))},
            ["--class-names", "cat"],
            "class_names must",
        ),
        (
            {"model": detectron2(UNITS, heads(UNITS, background_first=False))},
            ["--model.roi-size", "5"],
            "another shape",
        ),
    ],
)
def test_the_error_for_an_unusable_file_is_one_line_and_nothing_is_written(tmp_path, capsys, content, options, message):
    path = tmp_path / "m.pkl"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write(path, content)
    assert cli.main(["import-weights", str(path), "--output", str(tmp_path / "run"), *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kfpn")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_backbone_becomes_a_detector_with_untrained_heads_and_a_warning(tmp_path):
    content = {"model": detectron2_backbone(UNITS), "__author__": "torchvision"}
    path = write(tmp_path / "r18.pkl", content)
    args = ["import-weights", str(path), "--output", str(tmp_path / "run"), "--class-names", "cat", "dog"]
    with pytest.warns(UserWarning, match=r"r18\.pkl is a backbone: pyramid, RPN and heads are left fresh"):
        assert cli.main([*args, "--model.pyramid-channels", "8", "--model.head-width", "8"]) == 0
    detector = kfpn.load_detector(tmp_path / "run")
    assert detector.class_names == ("cat", "dog")
    kernel = np.transpose(UNITS[1, 0, 1]["w"], (2, 3, 1, 0))
    np.testing.assert_array_equal(values(detector)["stem_conv/kernel"], kernel)


def test_published_weights_are_listed(capsys):
    assert cli.main(["list-pretrained"]) == 0
    listed = capsys.readouterr().out
    assert all(known.name in listed and known.url in listed for known in kfpn.list_pretrained())
