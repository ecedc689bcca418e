import io
import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kfpn.data.annotation_checks import CLIPPED
from kfpn.data.formats.tfds import TfdsSource, _require_features, prepared
from kfpn.data.image import load_image


def encoded(orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.new("RGB", (40, 20), "green").save(stream, "JPEG", exif=exif)
    stream.seek(0)
    return stream


class OneSplit(tfds.core.GeneratorBasedBuilder):
    """Has images of one split, in the order in which they are made."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _with_objects(self, more=None, **features):
        """Returns the info of images with boxes and labels, `more` fields of each object, and other features."""
        inner = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
        objects = tfds.features.Sequence({**inner, **(more or {})})
        whole = tfds.features.FeaturesDict({"image": tfds.features.Image(), **features, "objects": objects})
        return tfds.core.DatasetInfo(builder=self, features=whole, disable_shuffling=True)


class Tiny(OneSplit):
    """Has two images: one is rotated, one is without objects."""

    def _info(self):
        fields = {"image/id": np.int64, "mask": tfds.features.Image()}
        return self._with_objects({"is_difficult": np.bool_, "area": np.int64}, **fields)

    def _generate_examples(self):
        box = tfds.features.BBox(ymin=0.0, xmin=0.5, ymax=0.5, xmax=1.0)
        objects = [
            {"bbox": box, "label": 1, "is_difficult": False, "area": 99},
            {"bbox": box, "label": 0, "is_difficult": True, "area": 0},
        ]
        mask = np.zeros((4, 4, 3), np.uint8)
        yield 0, {"image": encoded(6), "image/id": 77, "mask": mask, "objects": objects}
        yield 1, {"image": encoded(), "image/id": 78, "mask": mask, "objects": []}


class Bare(OneSplit):
    """Has images with one label and without boxes, as data for classification has."""

    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self):
        yield 0, {"image": encoded(), "label": 1}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def test_records_are_read_in_any_order_and_boxes_turn_with_the_image(data_dir):
    source = TfdsSource(prepared("tiny", data_dir))
    assert source.name == "tfds:tiny/1.0.0,train"
    assert source.class_names == ("cat", "dog")
    assert source.category_ids == (0, 1)
    assert source.sizes.tolist() == [[40, 20], [20, 40]]
    assert source[1].boxes.shape == (0, 4)
    record = source[0]
    assert record.image_id == 77
    # The top right quarter becomes the bottom right one when the image is turned clockwise.
    assert record.boxes.tolist() == [[20, 10, 40, 20]] * 2
    assert record.labels.tolist() == [1, 0]
    assert record.crowd.tolist() == [False, True]
    assert record.areas.tolist() == [99, 200]
    assert load_image(record).shape == (40, 20, 3)


def test_the_second_opening_reads_the_cache_and_warns_again(data_dir, monkeypatch, caplog):
    builder = prepared("tiny", data_dir)
    monkeypatch.setattr("kfpn.data.annotation_checks._ROUNDING", -1.0)  # so that every box counts as clipped
    first = TfdsSource(builder, "train[:50%]")
    monkeypatch.setattr(TfdsSource, "_scan", None)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "kfpn"):
        second = TfdsSource(builder, "train[:50%]")
    assert len(second) == 1
    assert second[0].boxes.tolist() == first[0].boxes.tolist()
    assert any(f"{CLIPPED}: 2" in message for message in caplog.messages)


def test_a_damaged_cache_is_made_anew(data_dir):
    builder = prepared("tiny", data_dir)
    expected = TfdsSource(builder)[0].boxes.tolist()
    for cache in builder.data_path.glob("kfpn-*.npz"):
        cache.write_bytes(b"broken")
    assert TfdsSource(builder)[0].boxes.tolist() == expected


def test_data_in_another_format_is_prepared_again(tmp_path, caplog):
    tfds.builder("tiny", data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    with caplog.at_level(logging.WARNING, "kfpn"):
        builder = prepared("tiny", str(tmp_path))
    assert any("is there as tfrecord" in message for message in caplog.messages)
    assert len(TfdsSource(builder)) == 2


def test_the_error_for_a_missing_data_set_split_or_feature_names_it(data_dir):
    with pytest.raises(ValueError, match="no such data set; the nearest names are coco"):
        prepared("cocoo", data_dir)
    with pytest.raises(ValueError, match=r"coco/2019: can't be opened \(its configurations: 2014, 2017"):
        prepared("coco/2019", data_dir)
    with pytest.raises(ValueError, match="there is no split 'trian'; there are"):
        TfdsSource(prepared("tiny", data_dir), "trian")
    with pytest.raises(
        ValueError, match="must have the features image, objects/bbox and objects/label, got image, label"
    ):
        prepared("bare", data_dir)  # refused before anything is downloaded
    with pytest.raises(ValueError, match="at least one example"):
        TfdsSource(prepared("tiny", data_dir), "train[:0]")


def test_the_error_for_a_failed_download_gives_the_reason(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Tiny, "_split_generators", fail)
    with pytest.raises(ValueError, match=r"tfds:tiny: could not be downloaded and prepared: .*no route to host"):
        prepared("tiny", str(tmp_path))


def test_coco_and_voc_have_the_features_that_are_needed(data_dir):
    for name in ("coco/2017", "voc/2007"):
        _require_features(tfds.builder(name, data_dir=data_dir), name)


@pytest.mark.parametrize("scanned", [False, True])
def test_a_damaged_record_file_is_named_by_folder_and_example(tmp_path, scanned):
    builder = tfds.builder("tiny", data_dir=str(tmp_path))
    builder.download_and_prepare(file_format="array_record")
    if scanned:
        TfdsSource(builder)
    (record_file,) = builder.data_path.glob("*array_record*")
    data = bytearray(record_file.read_bytes())
    data[200:260] = bytes(byte ^ 0x5A for byte in data[200:260])
    record_file.write_bytes(data)
    with pytest.raises(
        ValueError, match=rf"tfds:tiny/1\.0\.0,train in {tmp_path}.*: example 0 can't be read .*damaged"
    ):
        TfdsSource(builder)[0].image  # noqa: B018


class Outlined(OneSplit):
    """Has a picture of numbered objects: the first one of two is the left half of the stored pixels of a turned image."""

    def _info(self):
        return self._with_objects(mask=tfds.features.Image(shape=(None, None, 1)))

    def _generate_examples(self):
        mask = np.zeros((20, 40, 1), np.uint8)
        mask[:, :20] = 1
        box = tfds.features.BBox(ymin=0.0, xmin=0.0, ymax=1.0, xmax=0.5)
        objects = [{"bbox": box, "label": 1}, {"bbox": box, "label": 0}]
        yield 0, {"image": encoded(6), "mask": mask, "objects": objects}
        yield 1, {"image": encoded(), "mask": mask * 7, "objects": objects}


def test_numbered_masks_turn_with_their_image_and_are_kept_in_the_cache(data_dir, monkeypatch):
    builder = prepared("outlined", data_dir)
    assert TfdsSource(builder)[0].masks is None
    for _ in range(2):
        source = TfdsSource(builder, masks=True)
        record = source[0]
        assert record.masks.exists.tolist() == [True, False]
        assert record.boxes[0].tolist() == [0, 0, 20, 20]
        assert record.masks.bitmap(0)[:20].all()
        assert not record.masks.bitmap(0)[20:].any()
        assert not source[1].masks.exists.any()  # it has the number 7, and two objects
        monkeypatch.setattr(TfdsSource, "_scan", None)


def test_masks_of_another_size_than_their_image_are_left_out(data_dir, caplog):
    with caplog.at_level(logging.WARNING, "kfpn"):
        record = TfdsSource(prepared("tiny", data_dir), masks=True)[0]
    assert not record.masks.exists.any()
    assert len([message for message in caplog.messages if "masks of another size" in message]) == 1
