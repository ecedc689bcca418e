import os

import pytest
from PIL import Image

from kfpn.data.image_endings import image_endings, images_among
from kfpn.export.calibration import calibration_pictures
from kfpn.inference.images_of_user import find_images
from kfpn.inference.inspect_pyramid import page_paths

USUAL = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif", ".jp2",
         ".mpo", ".ppm", ".pgm", ".pbm", ".tga", ".ico"}  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "B.JPEG", "c.jfif", "d.jp2", "e.PNG", "f.tga"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"")
    for name in ("notes.txt", "more.TXT", "film.mp4", "README", "figure.eps"):
        (folder / name).write_text("")
    (folder / "inner.jpg").mkdir()
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    return folder


def test_every_ending_is_of_a_format_whose_pixels_pillow_reads():
    assert image_endings() >= USUAL
    assert not image_endings() & {
        ".eps",
        ".ps",
        ".pdf",
        ".wmf",
        ".emf",
        ".mpg",
        ".mpeg",
        ".h5",
        ".hdf",
        ".grib",
        ".bufr",
    }


def test_images_of_any_ending_are_taken_and_the_others_are_counted(photos):
    found = images_among(photos.iterdir())
    assert [path.name for path in found.files] == ["B.JPEG", "a.jpg", "c.jfif", "d.jp2", "e.PNG", "f.tga"]
    assert found.passed_over_line() == "2 .txt, 2 hidden, 1 .eps, 1 .mp4, 1 folders, 1 links or pipes, 1 others"


def test_a_folder_says_in_one_line_what_it_passes_over(photos, caplog):
    assert len(find_images([str(photos)])) == 6
    assert [record.message for record in caplog.records] == [
        f"{photos}: 6 images; passed over: 2 .txt, 2 hidden, 1 .eps, 1 .mp4, 1 folders, 1 links or pipes, 1 others"
    ]


def test_a_folder_of_images_alone_says_nothing(tmp_path, caplog):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert find_images([str(tmp_path)]) == [tmp_path / "a.png"]
    assert caplog.records == []


def test_of_a_pattern_only_the_images_are_taken_unless_it_names_none(photos, caplog):
    assert len(find_images([str(photos / "*")])) == 6
    assert "passed over: 2 .txt, 1 .eps" in caplog.text
    os.rename(photos / "a.jpg", photos / "a.data")
    assert find_images([str(photos / "*.data")]) == [photos / "a.data"]


def test_a_name_that_is_given_is_always_taken(photos):
    assert find_images([str(photos / "._a.jpg"), str(photos / "notes.txt")]) == [
        photos / "._a.jpg",
        photos / "notes.txt",
    ]


def test_an_empty_folder_says_what_is_there_and_an_address_is_refused(tmp_path):
    (tmp_path / "a.heic").write_text("")
    with pytest.raises(ValueError, match=r"must hold images \(.*\.jpg.*\), got none: there are only 1 \.heic"):
        find_images([str(tmp_path)])
    with pytest.raises(ValueError, match="images must be a place on this machine, got the address 'https://example"):
        find_images(["https://example.com/a.jpg"])


def test_calibration_and_the_page_of_a_pyramid_use_the_same_list(photos, tmp_path):
    assert len(list(calibration_pictures(str(photos), 10))) == 6
    with pytest.raises(ValueError, match=r"output must be a folder, or a file that ends with .*, got .*page\.jfif"):
        page_paths([photos / "a.jpg"], str(tmp_path / "page.jfif"))


def test_the_files_of_macos_in_the_collected_case_are_passed_over(shared, caplog):
    folder = shared("cases/12-macos-appledouble/JPEGImages")
    assert [path.name for path in find_images([str(folder)])] == [f"im{i}.jpg" for i in range(4)]
    assert "passed over: 5 hidden" in caplog.text
