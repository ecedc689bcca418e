import dataclasses
import importlib.util
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import kfpn
from kfpn.config.presets import preset
from kfpn.data.pipeline import train_batches
from kfpn.losses.training_losses import noise_shapes
from kfpn.training.sampler_noise import with_noise
from tests.modeling import tiny
from tests.training import made_up, small_detector

RULE = kfpn.InputConfig(short_side=64, long_side=64, scale_jitter=(0.5, 1.0), train_short_sides=(48, 64))
CONFIG = dataclasses.replace(preset("coco"), input=RULE, model=tiny.config(num_classes=2), seed=3)


def same(one, other):
    assert set(one) == set(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.mark.parametrize("mask", [False, True], ids=["boxes", "masks"])
def test_both_kinds_give_the_batches_of_a_run_epoch_after_epoch(mask):
    config = dataclasses.replace(CONFIG, batch_size=4, model=dataclasses.replace(CONFIG.model, mask=mask))
    source = made_up.source(0, 9)
    if mask:
        records = [source[index] for index in range(9)]
        source = made_up.with_masks(records, source.class_names, "masks")
    by_tensorflow = kfpn.dataset(source, config, 4)
    by_python = kfpn.dataset(source, config, 4, kind="python")
    of_run = with_noise(train_batches(source, config), config, noise_shapes).as_numpy_iterator()
    assert int(by_tensorflow.cardinality()) == len(by_tensorflow) == len(by_python) == by_python.num_batches == 2
    for epoch in range(2):
        given = list(by_tensorflow.as_numpy_iterator())
        assert len(given) == 2
        for number, own in enumerate(given):
            expected = next(of_run)
            expected["record_index"] = expected["record_index"].astype(np.int32)
            del expected["sample_index"]
            same(own, expected)
            same(by_python[number], expected)
        by_python.on_epoch_end()
        by_python.on_epoch_end()  # Keras calls it at other times as well.
        assert by_python.epoch == epoch + 1
    later = kfpn.dataset(source, config, 4, kind="python", first_epoch=1)
    same(later[0], given[0])


class Seen(keras.Model):
    """Trains nothing, and notes which images it is given."""

    def train_step(self, batch):
        self.seen.append(batch["record_index"].numpy().tolist())
        return {"loss": 0.0}


@pytest.mark.parametrize("workers", [0, 2])
def test_fit_takes_the_epochs_from_the_first_one_on(workers):
    source, config = made_up.source(0, 9), dataclasses.replace(CONFIG, batch_size=2)
    expected = [batch["record_index"].tolist() for batch in epochs_of(kfpn.dataset(source, config, 2), 2)]
    model = Seen()
    model.seen, model.built = [], True
    model.compile("sgd", run_eagerly=True)
    batches = kfpn.dataset(source, config, 2, kind="python")
    batches.workers = workers
    model.fit(batches, epochs=2, shuffle=False, verbose=0)
    assert (model.seen, batches.epoch) == (expected, 2)
    with pytest.raises(
        ValueError, match=r"^use_multiprocessing must be False .* threads make them, set workers instead$"
    ):
        batches.use_multiprocessing = True


def epochs_of(batches, count):
    return itertools.chain(*(batches.as_numpy_iterator() for _ in range(count)))


def test_to_evaluate_each_image_is_there_once_and_black_ones_count_nothing():
    source = made_up.source(0, 5)
    built = small_detector.detector(num_classes=2)
    built.input_config = kfpn.InputConfig(short_side=64, long_side=64)
    batches = list(kfpn.dataset(source, built, 2, train=False).as_numpy_iterator())
    python = kfpn.dataset(source, built, 2, train=False, kind="python")
    assert python.num_batches == len(batches) == 3
    for number, one in enumerate(batches):
        same(one, python[number])
    assert np.concatenate([one["record_index"] for one in batches]).tolist() == [0, 1, 2, 3, 4, -1]
    model = kfpn.trainable(built, **small_detector.SAMPLING)
    model.compile("sgd", run_eagerly=True)
    figures = model.evaluate(python, verbose=0, return_dict=True)
    assert set(figures) == {"loss", *small_detector.LOSSES}
    singles = kfpn.dataset(source, built, 1, train=False, kind="python")
    of_images = [model(singles[number], training=False) for number in range(5)]
    for name in small_detector.LOSSES:
        assert figures[name] == pytest.approx(np.mean([float(one[name][0]) for one in of_images]), rel=1e-3)
    assert figures["loss"] == pytest.approx(sum(figures[name] for name in small_detector.LOSSES), rel=1e-6)


def test_the_labels_of_a_detector_count_whatever_order_the_data_have():
    built = small_detector.detector(class_names=("red", "blue", "green"))
    built.input_config = RULE
    batch = next(iter(kfpn.dataset(made_up.source(0, 4), built, 4)))
    labels = [2, 0]  # of green and red
    wanted = [labels[index % 2] for index in batch["record_index"].numpy()]
    assert batch["gt_labels"][:, 0].numpy().tolist() == wanted


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({}, {"kind": "numpy"}, "kind must be 'auto', 'tf.data' or 'python', got 'numpy'"),
        ({}, {"first_epoch": -1}, "first_epoch must be an integer of at least 0, got -1"),
        ({"input_config": None}, {}, "detector must have an input_config, the rule by which images are resized"),
        (
            {"class_names": ("red", "blue")},
            {},
            "classes must be among those of the detector .*, got 'green': build it with",
        ),
        ({"class_names": ("class 1", "class 2", "class 3")}, {}, r"classes must be as many as the detector's 3, got 2"),
    ],
)
def test_what_can_not_be_used_is_refused_in_one_line(changes, arguments, message):
    count = len(changes.get("class_names", "12"))
    built = kfpn.build_detector(count, "resnet18", norm="bn", backbone_width=8, pyramid_channels=8, head_width=8)
    built.input_config = RULE
    for name, value in changes.items():
        setattr(built, name, value)
    with pytest.raises(ValueError, match=message):
        kfpn.dataset(made_up.source(0, 4), built, **{"batch_size": 2, **arguments})


def test_a_configuration_takes_the_number_of_classes_from_the_data():
    assert kfpn.dataset(made_up.source(0, 4), preset("coco"), 2, kind="python").config.model.num_classes == 2


def test_without_tensorflow_tf_data_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"kind must be 'python' where TensorFlow is not installed, got 'tf\.data'"
    ):
        kfpn.dataset(made_up.source(0, 4), CONFIG, 2, kind="tf.data")


def test_an_object_that_is_no_detector_is_refused():
    with pytest.raises(
        ValueError, match=r"detector must be a model of kfpn\.build_detector or kfpn\.load_detector, got int"
    ):
        kfpn.dataset(made_up.source(0, 4), 3, 2)


@pytest.fixture
def name(tmp_path):
    """Returns the name of data with 20 images and without a validation split."""
    from PIL import Image

    rows = ["image,x1,y1,x2,y2,class"]
    for number in range(20):
        Image.fromarray(np.full((40, 40, 3), number * 10, np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,2,2,20,20,cat")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    return f"csv:{tmp_path}/boxes.csv"


@pytest.fixture(scope="module")
def built():
    """Returns a detector of the classes of that data."""
    detector = small_detector.detector(num_classes=1, class_names=("cat",))
    detector.input_config = RULE
    return detector


def test_a_name_has_a_part_to_train_on_and_a_part_to_evaluate_on(name):
    train, val = (kfpn.dataset(name, CONFIG, 1, train=part, kind="python") for part in (True, False))
    assert (len(train.source), len(val.source)) == (18, 2)
    assert val.config.data == name
    batches = itertools.chain(
        *(dataset[number]["images"].ravel()[:1] for dataset in (train, val) for number in range(dataset.num_batches))
    )
    assert len(list(batches)) == 20
    assert not isinstance(train, tf.data.Dataset)


def test_a_share_of_the_images_is_kept_to_evaluate_on_and_is_one_for_both_parts(name, built):
    train, val = (kfpn.dataset(name, built, 4, train=part, kind="python", val_share=0.4) for part in (True, False))
    assert (len(train.source), len(val.source)) == (12, 8)
    model = kfpn.trainable(built)
    model.compile("sgd")
    other = kfpn.dataset(name, built, 4, train=False, kind="python")
    with pytest.raises(ValueError, match=r"val_share must be the same for both parts of csv:.*, got 0\.4 .* and None"):
        model.fit(train, validation_data=other)
    whole = kfpn.dataset(train.source, built, 4, kind="python")
    assert (len(whole.source), whole.config.val_share) == (12, 0.0)  # kfpn.evaluate must not measure a tenth of it.
    with pytest.raises(ValueError, match="has no validation split and a val_share of 0"):
        kfpn.dataset(name, built, 4, train=False, val_share=0.0)
    with pytest.raises(ValueError, match=r"val_share must be left out for a source, got 0\.4"):
        kfpn.dataset(train.source, built, 4, val_share=0.4)


def test_callbacks_take_the_part_to_evaluate_on_and_say_again_nothing_of_the_data(name, built, caplog):
    model = kfpn.trainable(built)
    model.data_config = kfpn.dataset(name, built, 4, kind="python", val_share=0.4).config
    assert "so 8 of its 20 images are kept" in caplog.text
    caplog.clear()
    for verbose, shown in ((0, False), ("auto", True), (1, True), (2, False)):
        callback = kfpn.callbacks.CocoAP(name)
        callback.set_model(model)
        callback.set_params({"epochs": 1, "verbose": verbose})
        callback.on_train_begin()
        assert (len(callback._images), callback._pass.progress) == (8, shown)
    assert caplog.text == ""


def test_a_folder_that_is_all_to_evaluate_on_is_opened_as_such(tmp_path, built):
    record = made_up.source(0, 1)[0]
    image = {"id": 1, "file_name": "1.png", "width": record.image.shape[1], "height": record.image.shape[0]}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    folder = tmp_path / "valid"
    folder.mkdir()
    keras.utils.save_img(folder / "1.png", record.image, scale=False)
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "_annotations.coco.json").write_text(json.dumps(coco))
    assert len(kfpn.dataset(folder, built, train=False, kind="python").source) == 1
    with pytest.raises(ValueError, match="data must have a split 'train'"):
        kfpn.dataset(folder, built)
