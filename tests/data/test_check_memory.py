import json
import logging
import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from kfpn.data import check_memory, formats, image_checks
from kfpn.data.annotations import AnnotatedSource
from kfpn.data.check_memory import CheckMemory, file_stamps, pack, settled, unpack
from kfpn.data.formats import open_source
from kfpn.data.formats.coco import CocoSource
from kfpn.data.remembered_source import files_below

BOXES = [[1, 2, 10, 12], [3, 4, 20, 10], [5, 2, 9, 9]]


def write_json(path, boxes=BOXES, count=3):
    content = {
        "images": [{"id": 10 + i, "file_name": f"ü {i}.jpg"} for i in range(count)],
        "annotations": [{"id": i + 1, "image_id": 10 + i % count, "category_id": 7, "bbox": box, "iscrowd": i % 2} for i, box in enumerate(boxes)],
        "categories": [{"id": 7, "name": "猫"}, {"id": 9, "name": "dog"}],
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    age(path)


def age(path, seconds=100):
    """Makes a file older: a file of this very moment is not remembered."""
    now = time.time_ns() - seconds * 1_000_000_000 + 7
    os.utime(path, ns=(now, now))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "set"
    place.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(place / f"ü {i}.jpg")
        age(place / f"ü {i}.jpg")
    write_json(place / "a.json")
    return place


@pytest.fixture
def checked(monkeypatch):
    """Lists the images that were looked at, and how."""
    seen, check, header = [], image_checks.check_image, image_checks.read_header
    monkeypatch.setattr(
        image_checks,
        "check_image",
        lambda image, decode: seen.append((os.path.basename(image), decode)) or check(image, decode=decode),
    )
    monkeypatch.setattr(
        image_checks, "read_header", lambda image: seen.append((os.path.basename(image), None)) or header(image)
    )
    return seen


def same(first, second):
    assert (first.name, first.class_names, first.category_ids) == (second.name, second.class_names, second.category_ids)
    assert (first.fault_counts, first.max_boxes, len(first)) == (second.fault_counts, second.max_boxes, len(second))
    for a, b in zip(first, second, strict=True):
        for key in ("image", "image_id", "height", "width", "name"):
            assert getattr(a, key) == getattr(b, key)
        for key in ("boxes", "labels", "crowd", "areas"):
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
            assert getattr(a, key).dtype == getattr(b, key).dtype


def test_the_second_opening_reads_nothing_and_gives_the_same_and_says_the_same(folder, checked, caplog):
    write_json(folder / "a.json", [*BOXES, [1, 1, 0, 0], [30, 20, 90, 90]])
    data = f"coco:{folder}/a.json"
    first = open_source(data)
    said = [record.message for record in caplog.records]
    assert (type(first), len(checked), len(said)) == (CocoSource, 3, 2)
    caplog.clear()
    second = open_source(data)
    assert (type(second), len(checked)) == (AnnotatedSource, 3)
    assert [record.message for record in caplog.records] == said
    same(first, second)
    assert second.fault_counts


def test_a_changed_image_alone_is_checked_again(folder, checked):
    data = f"coco:{folder}/a.json"
    open_source(data)
    Image.new("RGB", (40, 30), "white").save(folder / "ü 1.jpg", quality=5)
    age(folder / "ü 1.jpg", 50)
    checked.clear()
    assert isinstance(open_source(data), CocoSource)
    assert checked == [("ü 1.jpg", False)]
    (folder / "ü 2.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 3 images can't be used:\n.*ü 2.jpg is not an image"):
        open_source(data)
    checked.clear()
    Image.new("RGB", (40, 30)).save(folder / "ü 2.jpg")
    open_source(data)
    assert checked == [("ü 2.jpg", False)]  # the others are remembered though the data set had a fault


def test_changed_annotations_are_read_and_the_images_are_still_known(folder, checked):
    open_source(f"coco:{folder}/a.json")
    write_json(folder / "a.json", [[2, 2, 5, 5]])
    checked.clear()
    source = open_source(f"coco:{folder}/a.json")
    assert source[0].boxes.tolist() == [[2, 2, 7, 7]]
    assert checked == []


def test_the_three_ways_to_check(folder, checked):
    data = f"coco:{folder}/a.json"
    open_source(data, check_images="none")
    assert ([how for _, how in checked], list(folder.glob(".kfpn*"))) == ([None] * 3, [])
    open_source(data, check_images="once")
    assert [how for _, how in checked[3:]] == [False] * 3
    open_source(data, check_images="full")
    assert [how for _, how in checked[6:]] == [True] * 3
    open_source(data, check_images="none")
    assert len(checked) == 9  # what was checked is known
    with pytest.raises(ValueError, match="check_images must be one of full, once, none, got 'twice'"):
        open_source(data, check_images="twice")


def test_damage_behind_the_header_is_found_by_full_only(folder):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "ü 0.png")
    content = bytearray((folder / "ü 0.png").read_bytes())
    (folder / "ü 0.jpg").write_bytes(content[:60])
    open_source(f"coco:{folder}/a.json", check_images="none")
    for how in ("once", "full"):
        with pytest.raises(ValueError, match=r"1 of 3 images can't be used"):
            open_source(f"coco:{folder}/a.json", check_images=how)


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "cut",
        "text",
        "another place",
        "another version",
        "pickle",
        "wrong shape",
        "wrong box",
        "wrong label",
        "negative size",
    ],
)
def test_a_file_that_does_not_fit_is_as_if_it_were_not_there(folder, checked, damage, monkeypatch):
    data = f"coco:{folder}/a.json"
    first = open_source(data)
    (file,) = folder.glob(".kfpn*.npz")
    with np.load(file) as stored:
        arrays = dict(stored)
    changes = {
        "another place": {"place": np.asarray("1 coco:other")},
        "another version": {"place": np.asarray(str(arrays["place"]).replace("kfpn 0", "kfpn 9", 1))},
        "pickle": {"rows": np.asarray([{}], object)},
        "wrong shape": {"rows": arrays["rows"][:2]},
        "wrong box": {"boxes": arrays["boxes"] + 100},
        "wrong label": {"labels": arrays["labels"] + 5},
        "negative size": {"rows": -arrays["rows"]},
    }
    if damage in changes:
        with open(file, "wb") as stream:
            np.savez(stream, **(arrays | changes[damage]))
    else:
        content = file.read_bytes()
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"hello"}[damage])
    checked.clear()
    second = open_source(data)
    same(first, second)
    assert len(checked) == (0 if damage in ("wrong box", "wrong label") else 3)
    checked.clear()
    same(first, open_source(data))
    assert checked == []  # it was written again


def test_the_file_of_another_user_is_not_read(folder, checked, monkeypatch):
    open_source(f"coco:{folder}/a.json")
    checked.clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    open_source(f"coco:{folder}/a.json")
    assert len(checked) == 3


def test_where_the_folder_can_not_be_written_the_cache_folder_is_used_and_then_none(folder, tmp_path, checked):
    folder.chmod(0o555)
    try:
        for _ in range(2):
            open_source(f"coco:{folder}/a.json")
        assert len(checked) == 3
        assert len(list((tmp_path / "cache" / "kfpn").glob(".kfpn-checked-*.npz"))) == 1
        assert list(folder.glob(".kfpn*")) == []
        (tmp_path / "cache" / "kfpn").rename(tmp_path / "old")
        (tmp_path / "cache" / "kfpn").write_text("a file")
        for _ in range(2):
            open_source(f"coco:{folder}/a.json")
        assert len(checked) == 9
    finally:
        folder.chmod(0o755)


def test_a_file_of_this_very_moment_is_checked_again():
    second = 1_000_000_000
    stamps = np.array([[5, 100 * second + 7], [5, 99 * second], [-1, -1], [5, 99 * second + 5]])
    assert settled(stamps, 100.1).tolist() == [True, False, False, True]
    assert settled(stamps, 100.01).tolist() == [False, False, False, True]
    assert settled(stamps, 101.5).tolist() == [True, True, False, True]


def test_a_copy_of_a_folder_does_not_bring_its_memory(folder, tmp_path, checked):
    """A stranger's archive may hold a memory of its own, with the times of its files kept."""
    open_source(f"coco:{folder}/a.json")
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    checked.clear()
    open_source(f"coco:{folder}/a.json")
    assert len(checked) == 3


def test_relative_names_of_two_folders_are_two_data_sets(folder, tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "set").symlink_to(folder)
        monkeypatch.chdir(tmp_path / name)
        assert open_source("coco:set/a.json")[0].image.startswith("set/")
    assert len(list(folder.glob(".kfpn*"))) == 2


def test_a_voc_folder_is_remembered_until_any_of_its_files_changes(folder, checked):
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for i in range(2):
        (folder / f"ü {i}.jpg").rename(folder / "JPEGImages" / f"v{i}.jpg")
        text = "<annotation><object><name>{}</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        (folder / "Annotations" / f"v{i}.xml").write_text(text.format("cat"))
        age(folder / "Annotations" / f"v{i}.xml")
    (folder / "ImageSets" / "Main" / "train.txt").write_text("v0\nv1\n")
    age(folder / "ImageSets" / "Main" / "train.txt")
    data = f"voc:{folder}"
    first = open_source(data)
    second = open_source(data)
    same(first, second)
    assert (type(second), len(checked)) == (AnnotatedSource, 2)
    run = folder / "runs" / "one"
    run.mkdir(parents=True)
    for name in ("config.json", "classes.json"):
        (run / name).write_text("{}")
    (folder / "train.log").write_text("step 1")
    open_source(data)  # a new name beside the data: read anew
    (folder / "train.log").write_text("step 1, step 2")
    (run / "metrics.jsonl").write_text("{}")
    assert (type(open_source(data)), len(checked)) == (AnnotatedSource, 2)
    (folder / "Annotations" / "v2.xml").write_text(text.format("dog"))
    assert open_source(data).class_names == ("cat", "dog")
    assert len(checked) == 2


def test_what_was_said_with_the_logger_off_is_said_by_the_next_opening_and_once(folder, caplog):
    write_json(folder / "a.json", [*BOXES, [1, 1, 0, 0]])
    text = (folder / "a.json").read_text(encoding="utf-8").replace("dog", "猫 ")
    (folder / "a.json").write_text(text, encoding="utf-8")
    age(folder / "a.json")
    logging.disable(logging.CRITICAL)
    try:
        open_source(f"coco:{folder}/a.json")
    finally:
        logging.disable(logging.NOTSET)
    assert not caplog.messages
    assert type(open_source(f"coco:{folder}/a.json")) is AnnotatedSource
    assert sorted("without area" in message for message in caplog.messages) == [False, True]


def test_folders_that_are_links_are_looked_into_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "set").mkdir()
    for name in ("a.xml", "._a.xml"):
        (tmp_path / "real" / name).write_text("")
    (tmp_path / "set" / "Annotations").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "set")
    assert files_below(str(tmp_path / "set")) == [str(tmp_path / "set" / "Annotations" / "a.xml")]


def test_a_folder_that_is_no_data_set_is_not_looked_through(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "files_below", None)
    for data in (f"coco:{tmp_path}", f"voc:{tmp_path}"):
        with pytest.raises(ValueError, match=r"must name an annotations file|does not exist"):
            open_source(data)


def _open(data, queue):
    looked = []
    check = image_checks.check_image

    def slow(image, decode):
        looked.append(image)
        time.sleep(0.1)
        return check(image, decode=decode)

    image_checks.check_image = slow
    open_source(data)
    queue.put(len(looked))


def test_processes_that_open_at_the_same_time_check_once(folder):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_open, args=(f"coco:{folder}/a.json", queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert sorted(queue.get(timeout=60) for _ in workers) == [0, 0, 3]
    for worker in workers:
        worker.join()


def test_texts_come_back_as_they_were():
    for texts in ([], ["a"], ["", "b"], ["\udce9", "猫\n", "x" * 1000]):
        assert unpack(pack(texts)) == (texts or [])


def test_files_that_are_not_there_have_no_stamp(tmp_path):
    (tmp_path / "a").write_text("123")
    assert file_stamps([tmp_path / "a", tmp_path / "b"])[:, 0].tolist() == [3, -1]


def test_an_unwritable_memory_does_not_stop_the_opening(tmp_path, monkeypatch):
    monkeypatch.setattr(check_memory, "cache_folder", lambda: tmp_path / "file" / "folder")
    (tmp_path / "file").write_text("")
    (tmp_path / "set").mkdir(mode=0o555)
    memory = CheckMemory("x", tmp_path / "set")
    memory.learn(["/a"], np.ones((1, 2), np.int64), np.ones((1, 5), np.int32), np.ones(1, bool))
    memory.write()
    assert list((tmp_path / "set").iterdir()) == []


def test_an_image_of_the_same_size_and_time_is_another_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = {"images": [{"id": 1, "file_name": "a.bmp"}], "categories": [{"id": 1, "name": "cat"}],
               "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9]}]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    for name, size in (("a.bmp", (20, 32)), ("b.bmp", (32, 20))):
        Image.new("RGB", size).save(tmp_path / name)
    for name in ("a.json", "a.bmp"):
        age(tmp_path / name)
    data = f"coco:{tmp_path}/a.json"
    assert open_source(data).sizes.tolist() == [[32, 20]]
    times = (tmp_path / "a.bmp").stat()
    os.utime(tmp_path / "b.bmp", ns=(times.st_mtime_ns, times.st_mtime_ns))
    os.replace(tmp_path / "b.bmp", tmp_path / "a.bmp")
    assert (tmp_path / "a.bmp").stat().st_size == times.st_size
    assert open_source(data).sizes.tolist() == [[20, 32]]


def test_a_relative_folder_of_images_is_another_one_from_another_folder(folder, tmp_path, monkeypatch):
    data = f"coco:{folder}/a.json,images"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    shutil.copytree(folder, tmp_path / "one" / "images")
    monkeypatch.chdir(tmp_path / "one")
    open_source(data)
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(ValueError, match="3 of 3 images do not exist"):
        open_source(data)


def test_names_that_were_guessed_are_read_anew_each_time(folder):
    (folder / "sub").mkdir()
    (folder / "ü 0.jpg").rename(folder / "sub" / "ü 0.jpg")
    for i in (1, 2):
        (folder / f"ü {i}.jpg").unlink()
    write_json(folder / "a.json", [[1, 2, 10, 12]], count=1)
    data = f"coco:{folder}/a.json"
    assert open_source(data)[0].image == str(folder / "sub" / "ü 0.jpg")
    shutil.copy(folder / "sub" / "ü 0.jpg", folder / "ü 0.jpg")
    assert open_source(data)[0].image == str(folder / "ü 0.jpg")


def test_a_memory_that_holds_more_images_than_the_data_set_is_written_again(folder, checked):
    data = f"coco:{folder}/a.json"
    open_source(data)
    write_json(folder / "a.json", [[1, 2, 10, 12]], count=2)
    open_source(data)
    second = open_source(data)
    assert type(second) is AnnotatedSource
    assert len(second) == 2
    assert len(checked) == 3


@pytest.mark.parametrize("time_of_memory", [float("inf"), float("nan")])
def test_a_memory_with_an_impossible_time_is_not_trusted(folder, checked, time_of_memory):
    data = f"coco:{folder}/a.json"
    open_source(data)
    file = next(folder.glob(".kfpn-checked-*.npz"))
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    with open(file, "wb") as opened:
        np.savez(opened, **{**arrays, "time": np.asarray(time_of_memory)})
    open_source(data)
    assert len(checked) == 6


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", no_home)
    assert check_memory.cache_folder().name.startswith("kfpn-")
