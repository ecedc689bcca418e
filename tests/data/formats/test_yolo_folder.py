"""Folders in YOLO's form without a yaml: no image of them is left out without a word."""

import pytest
from PIL import Image

from kfpn.data.formats import open_source


def made(root, *images):
    """Makes a folder of a list of classes and images, each with a label file where YOLO looks for it."""
    for name in images:
        for path in (root / name, (root / name.replace("images", "labels", 1)).with_suffix(".txt")):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(root / name)
        path.write_text("0 0.5 0.5 0.25 0.5\n")
    (root / "classes.txt").write_text("cat\n")
    return root


@pytest.mark.parametrize("form", ["{}", "yolo:{}"])
@pytest.mark.parametrize("beside", ["images/im0.png", "images/extra/im0.png"])
def test_images_of_the_data_that_are_in_no_split_are_refused(tmp_path, beside, form):
    made(tmp_path, "images/train/a.png", "images/val/b.png", beside)
    with pytest.raises(
        ValueError,
        match=r"images must lie in the folders of splits, .*images/train and .*images/val, got 1 in .*images.* \(first: im0\.png\): move",
    ):
        open_source(form.format(tmp_path))


@pytest.mark.parametrize("beside", ["plot.png", "extra/plot.png"])
@pytest.mark.parametrize("image", ["images/train/a.png", "images/a.png", "train/a.png"])
def test_images_elsewhere_in_the_folder_are_counted(tmp_path, caplog, image, beside):
    assert len(open_source(f"yolo:{made(tmp_path, image, beside)}")) == 1
    assert "images outside of the folders that are read, left out: 1 (first: " in caplog.text


def test_images_within_the_folders_of_splits_are_all_read(tmp_path, caplog):
    made(tmp_path, "images/train/a.png", "images/train/deep/b.png", "images/val/c.png")
    assert len(open_source(f"yolo:{tmp_path}")) == 2
    assert "left out" not in caplog.text
