"""Data without a validation split: the same images in each process, said, and never parts of one image or none."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kfpn.config.run import Config
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.class_table import count_classes
from kfpn.data.formats import open_source
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.own_split import open_run_sources, open_validation, part_of, split_by_image
from kfpn.data.record import Record

CONFIG = dataclasses.replace(Config(), seed=3)


def made(count):
    """Returns a source of images of which number i has i % 3 boxes of class i % 2."""

    def record(i):
        boxes = np.asarray([[1, 1, 4 + j, 5] for j in range(i % 3)], np.float32).reshape(-1, 4)
        return Record(np.zeros((8, 9, 3), np.uint8), i, 8, 9, boxes, np.full(len(boxes), i % 2), np.zeros(len(boxes), bool),
                      np.ones(len(boxes), np.float32), f"image {i}")  # fmt: skip

    return IterableSource([record(i) for i in range(count)], ["cat", "dog"], name="made")


def table(root, names, header=True):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(root / name)
    rows = "".join(f"{name},1,2,11,12,cat\n" for name in names)
    (root / "boxes.csv").write_text("image,x1,y1,x2,y2,class\n" + rows)
    return f"csv:{root / 'boxes.csv'}"


def images_of(source):
    return [source[i].image for i in range(len(source))]


def test_the_parts_have_all_images_once_and_each_image_its_own_boxes(caplog):
    source = made(40)
    train, val = split_by_image(source, 0.25, seed=0)
    assert (len(train), len(val)) == (30, 10)
    records = sorted((part[i] for part in (train, val) for i in range(len(part))), key=lambda record: record.image_id)
    for i, record in enumerate(records):
        assert (record.image_id, record.name) == (i, f"image {i}")
        assert record.boxes.tolist() == source[i].boxes.tolist()
        assert record.labels.tolist() == source[i].labels.tolist()
    assert all(isinstance(part, AnnotatedSource) for part in (train, val))
    whole = count_classes(source).objects
    assert (count_classes(train).objects + count_classes(val).objects).tolist() == whole.tolist()
    assert train.class_names == val.class_names == ("cat", "dog")
    assert (
        "made: has no validation split, so 10 of its 40 images are kept to evaluate on, drawn by seed 0" in caplog.text
    )
    assert (train.name, val.name) == ("made (training part)", "made (validation part)")


def test_another_seed_gives_other_images_and_an_added_image_moves_few():
    ids = [
        set(split_by_image(made(count), 0.25, seed)[1].image_ids.tolist())
        for count, seed in ((40, 0), (40, 1), (41, 0))
    ]
    assert ids[0] != ids[1]
    assert len(ids[0] - ids[2]) <= 1


def test_each_process_draws_the_same_images():
    code = (
        "from tests.data.test_own_split import made, split_by_image\n"
        "print(split_by_image(made(40), .25, 7)[1].image_ids.tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == str(split_by_image(made(40), 0.25, 7)[1].image_ids.tolist())


def test_the_images_are_the_same_wherever_their_folder_is(tmp_path):
    names = [f"sub/{i}.png" for i in range(20)]
    parts = [split_by_image(open_source(table(tmp_path / place, names)), 0.2, 0)[1] for place in ("here", "there/deep")]
    assert [name.rpartition("/")[2] for name in images_of(parts[0])] == [
        name.rpartition("/")[2] for name in images_of(parts[1])
    ]


def test_copies_of_one_photograph_stay_together(tmp_path):
    names = [f"img_{i}_jpg.rf.{copy:032x}.png" for i in range(8) for copy in range(3)]
    train, val = split_by_image(open_source(table(tmp_path, names)), 0.2, 0)
    stems = [{image.rpartition("/")[2].partition(".rf.")[0] for image in images_of(part)} for part in (train, val)]
    assert not stems[0] & stems[1]
    assert len(val) == 6


@pytest.mark.parametrize(("count", "share"), [(12, 0.1), (3, 0.5), (2, 0.5), (10, 0.01)])
def test_a_share_that_leaves_less_than_two_images_is_refused(count, share):
    with pytest.raises(ValueError, match=r"val_share must leave at least 2 images .* got .* of made, which is"):
        split_by_image(made(count), share, 0)


def test_unasked_a_small_set_keeps_two_images_and_a_tiny_one_is_not_split(caplog):
    train, val = split_by_image(made(12), 0.1, 0, asked=False)
    assert (len(train), len(val)) == (10, 2)
    source = made(3)
    assert split_by_image(source, 0.1, 0, asked=False) == (source, None)
    assert "made: not split, 3 images are too few" in caplog.text


def test_new_forms_are_split_by_default_and_those_of_older_versions_are_not(tmp_path):
    data = table(tmp_path, [f"{i}.png" for i in range(20)])
    train, val = open_run_sources(dataclasses.replace(CONFIG, data=data))
    assert (len(train), len(val)) == (18, 2)
    assert images_of(open_validation(dataclasses.replace(CONFIG, data=data))) == images_of(val)
    assert open_run_sources(dataclasses.replace(CONFIG, data=data, val_share=0.0))[1] is None
    assert len(open_run_sources(dataclasses.replace(CONFIG, data=str(tmp_path)))[1]) == 2
    assert len(open_run_sources(dataclasses.replace(CONFIG, data=data, val_share=0.5))[1]) == 10
    xml = "<annotation><object><name>a</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>11</xmax><ymax>12</ymax></bndbox></object></annotation>"
    for i in range(20):
        (tmp_path / f"{i}.xml").write_text(xml)
    assert open_run_sources(dataclasses.replace(CONFIG, data=f"voc:{tmp_path}"))[1] is None
    assert open_validation(dataclasses.replace(CONFIG, data=f"voc:{tmp_path}")) is None
    assert len(open_run_sources(dataclasses.replace(CONFIG, data=f"voc:{tmp_path}", val_share=0.1))[1]) == 2


def test_a_share_beside_validation_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"val_share must be left out, got 0\.1: val_data is x"):
        dataclasses.replace(CONFIG, val_data="x", val_share=0.1)
    with pytest.raises(ValueError, match=r"val_share must be a share from 0 to \.9"):
        dataclasses.replace(CONFIG, val_share=1.5)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "val.txt").touch()
    with pytest.raises(ValueError, match=r"val_share must be left out, got 0.1: voc:.*,val is there to evaluate on"):
        open_run_sources(dataclasses.replace(CONFIG, data=f"voc:{tmp_path}", val_share=0.1))


def test_a_source_of_ones_own_without_annotations_at_hand_is_split_too():
    class Plain:
        def __init__(self, source):
            self.name, self.class_names, self.category_ids = "plain", source.class_names, source.category_ids
            self.sizes, self.max_boxes = source.sizes, source.max_boxes
            self._source = source

        def __len__(self):
            return len(self._source)

        def __getitem__(self, index):
            return self._source[index]

    part = part_of(Plain(made(6)), np.array([1, 4]), "part")
    assert [part[i].image_id for i in range(len(part))] == [1, 4]
    assert part.sizes.tolist() == [[8, 9], [8, 9]]
