import io

import numpy as np
import pytest
from PIL import Image

from kfpn.data import toy_scenes as scenes
from kfpn.data.formats import toy_shapes as shapes
from kfpn.data.formats.tfds import TfdsSource
from kfpn.data.toy_scenes import CLASS_NAMES, MAX_OBJECTS, SIZE, scene


def _scenes(count: int) -> list[scenes.Scene]:
    return [scene(np.random.default_rng([0, index])) for index in range(count)]


def test_a_scene_is_a_function_of_its_seed():
    first, again, other = (scene(np.random.default_rng(seed)) for seed in (4, 4, 5))
    for ours, theirs in zip(first, again, strict=True):
        assert np.array_equal(ours, theirs)
    assert not np.array_equal(first.image, other.image)


def test_boxes_and_areas_are_those_of_the_visible_mask():
    for drawn in _scenes(15):
        assert drawn.image.shape == (SIZE, SIZE, 3)
        assert drawn.image.dtype == drawn.mask.dtype == np.uint8
        assert 1 <= len(drawn.boxes) == len(drawn.labels) == len(drawn.areas) <= MAX_OBJECTS
        assert drawn.mask.max() == len(drawn.boxes)
        for index, (y0, x0, y1, x1) in enumerate(drawn.boxes):
            visible = drawn.mask == index + 1
            assert visible.sum() == drawn.areas[index] == visible[y0:y1, x0:x1].sum()
            for edge in (visible[y0, x0:x1], visible[y1 - 1, x0:x1], visible[y0:y1, x0], visible[y0:y1, x1 - 1]):
                assert edge.any()


def test_sizes_spread_over_the_scales_all_classes_occur_and_some_objects_are_occluded():
    drawn = _scenes(150)
    boxes = np.concatenate([d.boxes for d in drawn])
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    octaves = np.histogram(sides, [16, 32, 64, 128])[0] / len(sides)
    assert octaves.min() > 0.15
    assert sides.min() >= 8
    assert sides.max() > 128
    labels = np.concatenate([d.labels for d in drawn])
    assert np.bincount(labels, minlength=len(CLASS_NAMES)).min() > 0.12 * len(labels)
    # An unoccluded disc fills pi/4 of its box.
    discs = labels == CLASS_NAMES.index("circle")
    filled = np.concatenate([d.areas for d in drawn])[discs] / np.prod(boxes[discs, 2:] - boxes[discs, :2], axis=1)
    assert 0.05 < (filled < 0.74).mean() < 0.9
    assert filled.min() > 0.25


def test_a_ring_has_a_hole_and_a_disc_has_none():
    rng = np.random.default_rng(0)
    ring, disc = (scenes._shape(rng, CLASS_NAMES.index(name), 60.0) for name in ("ring", "circle"))
    assert ring[30, 30] == 0.0
    assert disc[30, 30] == 1.0
    assert ring[30, 3] == disc[30, 3] == 1.0
    assert abs(disc.sum() - np.pi * 30**2) < 40
    assert all(abs(side - 60) <= 1 for side in (*ring.shape, *disc.shape))


def test_an_example_holds_the_scene_and_differs_between_splits():
    made = shapes.example("validation", 3)
    drawn = scene(np.random.default_rng([2017, 1, 3]))
    assert np.array_equal(np.asarray(Image.open(made["mask"])), drawn.mask)
    decoded = np.asarray(Image.open(made["image"])).astype(int)
    assert np.abs(decoded - drawn.image).mean() < 4  # JPEG changes the pixels a little
    assert [o["area"] for o in made["objects"]] == drawn.areas.tolist()
    assert made["objects"][0]["bbox"].ymin == drawn.boxes[0, 0] / SIZE
    assert made["image"].getvalue() != shapes.example("test", 3)["image"].getvalue()


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'val'"):
        shapes.example("val", 0)


def test_the_builder_generates_once_with_random_access_and_the_same_scenes_every_time(tmp_path):
    made = shapes.builder(str(tmp_path), "tiny")
    assert {name: split.num_examples for name, split in made.info.splits.items()} == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }
    files = sorted(tmp_path.rglob("*.array_record*"))
    assert len(files) == 3
    written = [file.stat().st_mtime_ns for file in files]
    again = shapes.builder(str(tmp_path), "tiny")
    assert [file.stat().st_mtime_ns for file in files] == written
    examples = list(again.as_data_source("train"))
    assert sorted(int(e["image/id"]) for e in examples) == list(range(12))
    for example in examples[:3]:
        drawn = scene(np.random.default_rng([2017, 0, int(example["image/id"])]))
        assert np.array_equal(example["mask"][..., 0], drawn.mask)
        assert np.allclose(np.array(example["objects"]["bbox"]) * SIZE, drawn.boxes, atol=1e-4)
        assert np.array(example["objects"]["label"]).tolist() == drawn.labels.tolist()
        assert not any(example["objects"]["is_crowd"])


def test_a_builder_uses_the_files_of_another_process_that_was_faster(tmp_path, monkeypatch):
    prepare = shapes.Shapes.download_and_prepare

    def fails_as_the_folder_is_there(self, **options):
        prepare(self, **options)
        raise OSError("Directory not empty")

    monkeypatch.setattr(shapes.Shapes, "download_and_prepare", fails_as_the_folder_is_there)
    assert shapes.builder(str(tmp_path), "tiny").is_prepared()


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(self, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(shapes.Shapes, "download_and_prepare", full)
    with pytest.raises(OSError, match="No space left"):
        shapes.builder(str(tmp_path), "tiny")


def test_an_example_has_a_jpeg_image_and_a_gray_mask():
    made = shapes.example("train", 0)
    assert Image.open(io.BytesIO(made["image"].getvalue())).format == "JPEG"
    assert Image.open(io.BytesIO(made["mask"].getvalue())).mode == "L"


def test_the_masks_are_what_one_sees_of_the_objects(tmp_path):
    source = TfdsSource(shapes.builder(str(tmp_path), "tiny"), "validation", masks=True)
    for record in source:
        drawn = scene(np.random.default_rng([2017, 1, record.image_id]))
        assert len(record.masks) == len(drawn.boxes)
        for i in range(len(drawn.boxes)):
            assert (record.masks.bitmap(i) == (drawn.mask == i + 1)).all()
        assert record.masks.areas().tolist() == drawn.areas.tolist() == record.areas.tolist()
