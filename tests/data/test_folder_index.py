import unicodedata

import pytest

from kfpn.data import folder_index
from kfpn.data.folder_index import FolderIndex, readings


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("a/b.jpg", ("a", "b.jpg")), (r"a\b.jpg", ("a", "b.jpg")), (r"C:\x\b.jpg", ("x", "b.jpg")), ("/content/drive/b.jpg", ("content", "drive", "b.jpg")),
        (r"\\server\share\b.jpg", ("server", "share", "b.jpg")), ("./b.jpg", ("b.jpg",)), ("http://h:80/d/b.jpg?x=1#y", ("d", "b.jpg")),
        ("s3://bucket/d/b.jpg", ("d", "b.jpg")), ("file:///C:/d/b.jpg", ("d", "b.jpg")), ("/data/local-files/?d=d/b.jpg", ("d", "b.jpg")),
        ("\u202aC:\\d\\b.jpg", ("d", "b.jpg")), ("b.jpg\u200b", ("b.jpg",)), ("b.jpg\0", ("b.jpg",)), ("می\u200cb.jpg", ("می\u200cb.jpg",)),
        ("/data/local-files/?d=d%2Fb%201.jpg", ("d", "b 1.jpg")), ("b%201.jpg", ("b 1.jpg",)), ("d%5Cb.jpg", ("d", "b.jpg")),
    ],
)  # fmt: skip
def test_paths_of_other_machines_are_read(name, reading):
    assert reading in readings(name)


def test_nothing_is_no_path():
    assert readings("") == readings("/") == readings("..") == readings("a/..") == []


@pytest.fixture
def folder(tmp_path):
    for name in (
        "im0.jpg",
        "train/a.jpg",
        "val/a.jpg",
        "x/Only.JPG",
        "._im0.jpg",
        ".hidden/b.jpg",
        "__MACOSX/b.jpg",
        "im0.txt",
        "two.jpg",
        "two.JPG",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(folder, name):
    return ["/".join(parts) for parts in FolderIndex(folder).find(name).files]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("im0.jpg", ["im0.jpg"]),
        (r"D:\data\im0.jpg", ["im0.jpg"]),
        (r"D:\data\train\a.jpg", ["train/a.jpg"]),
        ("TRAIN/A.JPG", ["train/a.jpg"]),
        ("a.jpg", ["train/a.jpg", "val/a.jpg"]),
        ("other/a.jpg", ["train/a.jpg", "val/a.jpg"]),
        ("only.jpg", ["x/Only.JPG"]),
        ("two.jpg", ["two.jpg"]),
        ("Two.jpg", ["two.JPG", "two.jpg"]),
        ("b.jpg", []),
        ("../../im0.jpg", ["im0.jpg"]),
        ("0a1b2c3d-im0.jpg", ["im0.jpg"]),
        ("/data/upload/1/ab12-im0.jpg", ["im0.jpg"]),
        ("2023-im0.jpg", []),
        ("", []),
    ],
)
def test_a_name_is_the_file_that_shares_most_with_it(folder, name, files):
    assert found(folder, name) == files


def test_accents_may_be_written_in_two_ways(tmp_path):
    composed = unicodedata.normalize("NFC", "café.jpg")
    (tmp_path / unicodedata.normalize("NFD", composed)).touch()
    assert len(found(tmp_path, composed)) == 1
    (tmp_path / composed).touch()
    assert found(tmp_path, composed) == [composed]


def test_the_nearest_file_has_the_same_stem_or_is_spelt_alike(folder):
    index = FolderIndex(folder, (".jpg",))
    assert index.nearest("d/im0.png") == "im0.jpg"
    assert index.nearest("im00.jpg") == "im0.jpg"
    assert index.nearest("zebra.png") is None


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path)
    (tmp_path / "a" / "im.jpg").touch()
    assert found(tmp_path, "im.jpg") == ["a/im.jpg"]
    assert FolderIndex(tmp_path / "none").find("im.jpg").files == ()


def test_many_folders_with_the_same_names_cost_a_look_at_each_file(tmp_path, monkeypatch):
    for folder in range(30):
        (tmp_path / f"D{folder}").mkdir()
        for number in range(10):
            (tmp_path / f"D{folder}" / f"{number}.jpg").touch()
    index = FolderIndex(tmp_path)
    calls, plain = [], folder_index.plain_spelling
    monkeypatch.setattr(folder_index, "plain_spelling", lambda text: calls.append(text) or plain(text))
    for folder in range(30):
        for number in range(10):
            match = index.find(rf"C:\set\d{folder}\{number}.jpg")
            assert (match.files, match.place) == (((f"D{folder}", f"{number}.jpg"),), False)
            assert len(index.find(f"other{folder}/{number}.jpg").files) == 30
    assert index.find("D3/1.jpg").place
    assert len(calls) < 10 * 300


def test_few_names_are_compared_letter_by_letter(tmp_path, monkeypatch):
    for number in range(300):
        (tmp_path / f"{number:090}.jpg").touch()
    compared = []
    monkeypatch.setattr(
        folder_index.difflib, "get_close_matches", lambda name, names, **_: compared.extend(names) or []
    )
    FolderIndex(tmp_path).nearest(f"{'0' * 89}x{'1' * 120}.jpg")
    assert 0 < len(compared) <= 40
