import re
import shutil
import sys

import keras
import pytest
import yaml

import kfpn
from kfpn.cli import main
from kfpn.weights.model_card import model_card
from tests.modeling import keras_models, tiny

NAMES = ("cat", "dog", "a cow")
KAGGLE = "someone/pets/keras/small/3"


@pytest.fixture(scope="module")
def detector():
    built = kfpn.build_detector(
        **vars(tiny.config(backbone_width=8, pyramid_channels=16, norm="bn")), class_names=NAMES
    )
    tiny.shake(built)
    built.category_ids = (7, 8, 90)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=96)
    built.thresholds = (0.25, 0.5, 0.75)
    return built


@pytest.fixture(scope="module")
def saved(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "pets"
    kfpn.save_detector(detector, path, "Cats, dogs and cows on meadows.\n\nLicence: MIT.")
    return path


def require_same(loaded, detector):
    tiny.require_same_detections(detector, loaded, tiny.image(64, 96)[None])


@pytest.mark.parametrize("load", [kfpn.load_detector, kfpn.from_preset])
def test_a_saved_detector_is_loaded_with_all_that_it_knows(load, detector, saved):
    loaded = load(saved)
    require_same(loaded, detector)
    for name in ("class_names", "category_ids", "input_config", "model_config", "thresholds"):
        assert getattr(loaded, name) == getattr(detector, name), name
    assert {path.name for path in saved.iterdir()} == {
        "README.md", "classes.json", "config.json", "detector.weights.h5", "thresholds.json",
    }  # fmt: skip


def test_a_keras_model_that_is_the_backbone_is_saved_with_the_detector(tmp_path):
    built = kfpn.build_detector(
        num_classes=2, backbone=keras_models.convolutions(), pyramid_channels=16, head_width=16, post_nms_test=20
    )
    tiny.shake(built)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=96)
    kfpn.save_detector(built, tmp_path / "mine")
    moved = shutil.move(tmp_path / "mine", tmp_path / "moved")
    require_same(kfpn.load_detector(moved), built)


def test_the_model_card_says_what_the_detector_is(saved):
    _, header, text = (saved / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "kfpn", "pipeline_tag": "object-detection", "tags": ["keras", "object-detection"],
    }  # fmt: skip
    assert text.startswith("\n# pets\n\nCats, dogs and cows on meadows.\n\nLicence: MIT.\n")
    assert "| classes | 3: cat, dog, a cow |" in text
    assert "resnet18, fpn" in text


def test_the_commands_and_further_training_take_the_folder(saved, detector, tmp_path):
    from PIL import Image

    Image.fromarray(tiny.image(64, 96)).save(tmp_path / "photo.png")
    found = tmp_path / "found"
    assert main(["predict", "--workdir", str(saved), str(tmp_path / "photo.png"), "--output", str(found)]) == 0
    assert (found / "detections.json").exists()
    other = kfpn.build_detector(**vars(detector.model_config))
    kfpn.load_weights(other, saved)
    require_same(other, detector)


def test_what_can_not_be_saved_is_refused_before_anything_is_written(detector, saved, tmp_path):
    with pytest.raises(
        ValueError, match=r"path must be a folder without a run, got .*pets', which has one: name another"
    ):
        kfpn.save_detector(detector, saved)
    fresh = kfpn.build_detector(**vars(detector.model_config))
    with pytest.raises(ValueError, match="detector must have an input_config, the rule by which images are resized"):
        kfpn.save_detector(fresh, tmp_path / "new")
    with pytest.raises(ValueError, match=r"detector must be a model of kfpn\.build_detector .*, got int"):
        kfpn.save_detector(3, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["README.md", "thresholds.json", "classes.json"])
def test_a_file_of_somebody_else_is_not_replaced(name, detector, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        ValueError, match=rf"^path must be a folder without {re.escape(name)}, got .* would be replaced$"
    ):
        kfpn.save_detector(detector, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_what_a_detector_was_given_wrongly_is_refused_and_nothing_stays(tmp_path):
    built = kfpn.build_detector(
        **vars(tiny.config(backbone_width=8, pyramid_channels=16, norm="bn")), class_names=NAMES
    )
    for name, value, message in [
        ("input_config", {"short_side": 64}, r"detector\.input_config must be a kfpn\.InputConfig, got a \w*Dict: set"),
        ("input_config", kfpn.InputConfig(short_side=64, long_side=96), "description must be text, got None"),
        ("class_names", ("cat", "dog"), r"detector\.class_names must be 3, one for each label, got 2"),
        ("class_names", "cat", r"detector\.class_names must be 3, one for each label, got 'cat'"),
        ("class_names", NAMES, "description"),
        ("thresholds", (0.5,), r"detector\.thresholds must be 3, one for each label, got 1"),
    ]:
        setattr(built, name, value)
        with pytest.raises(ValueError, match=f"^{message}"):
            kfpn.save_detector(built, tmp_path / "new", None if "description" in message else "")
    built.thresholds = (0.5, 0.5, 0.5)
    built.trainable_variables[-1].assign(built.trainable_variables[-1] * float("nan"))
    with pytest.raises(
        ValueError, match=r"^detector must have finite weights, got NaN or inf in [^ ]+: its training has failed"
    ):
        kfpn.save_detector(built, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_backbone_that_keras_can_not_read_from_a_file_is_refused_when_it_is_saved(tmp_path):
    mine = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Lambda(lambda x: x / 255.0)])
    for layer in range(5):
        mine.add(keras.layers.Conv2D(8, 3, strides=2, padding="same", name=f"conv{layer}"))
    built = kfpn.build_detector(num_classes=2, backbone=mine, pixel_mean=(0, 0, 0), pyramid_channels=16, head_width=16)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=96)
    with pytest.raises(ValueError, match="Lambda"):
        kfpn.save_detector(built, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_card_keeps_its_table_whatever_the_names_are():
    built = kfpn.Config(model=tiny.config(), input=kfpn.InputConfig())
    assert "| classes | 2: a\\|b, c d |" in model_card(built, ("a|b", "c\nd"), "odd").splitlines()


def test_labels_and_weights_that_are_not_those_of_the_folder_are_refused(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / "classes.json").write_text('{"class_names": ["a"], "category_ids": [1]}')
    with pytest.raises(ValueError, match=r"classes\.json must have 3 class_names and category_ids, .* got 1 and 1$"):
        kfpn.load_detector(folder)
    (folder / "detector.weights.h5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(
        ValueError, match=r"weights that Keras saved, got a file that is a git-lfs pointer, .*git lfs pull"
    ):
        kfpn.load_detector(folder)


def test_a_folder_of_hugging_face_is_loaded(detector, saved, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kept = tmp_path / "models--someone--pets"
    shutil.copytree(saved, kept / "snapshots" / commit)
    for name in ("main", "v1"):
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / name).write_text(commit)
    for address in ("hf://someone/pets", "hf://someone/pets@v1"):
        require_same(kfpn.load_detector(address), detector)
    with pytest.raises(ValueError, match=r"^hf://someone/birds must be hf:// and USER/NAME, .* got: [^\n]+$"):
        kfpn.load_detector("hf://someone/birds")


def test_a_folder_of_kaggle_is_loaded(detector, saved, tmp_path, monkeypatch):
    pytest.importorskip("kagglehub")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    kept = tmp_path / "models" / KAGGLE
    shutil.copytree(saved, kept)
    (kept.parent / "3.complete").touch()
    require_same(kfpn.load_detector(f"kaggle://{KAGGLE}"), detector)
    with pytest.raises(
        ValueError, match=r"^kaggle://someone must be kaggle:// and USER/MODEL/FRAMEWORK/VARIATION, [^\n]+$"
    ):
        kfpn.load_detector("kaggle://someone")


@pytest.mark.parametrize(("address", "package"), [("hf://a/b", "huggingface_hub"), ("kaggle://a/b/c/d", "kagglehub")])
def test_without_the_library_of_a_hub_the_error_says_what_to_install(address, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModuleNotFoundError, match=f"^{address} needs {package}, which is not installed: pip install {package}$"
    ):
        kfpn.load_detector(address)
