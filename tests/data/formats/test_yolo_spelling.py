"""YOLO's form: label files and lists that spell an image otherwise than the disk does, in case or the form of accents."""

import pytest
from PIL import Image

from kfpn.data.formats.yolo import YoloSource


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20)).save(path)


def test_a_label_file_whose_accents_are_written_in_another_form_is_found(tmp_path, caplog):
    composed, apart = "\u00e9.png", "e\u0301.txt"
    image(tmp_path / "images" / "train" / composed)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / apart).write_text("0 .5 .5 .25 .5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    assert len(YoloSource(tmp_path / "data.yaml")[0].boxes) == 1
    assert (
        "file names that are spelt otherwise on this machine (separators, case, accents, %20), taken: 1" in caplog.text
    )


@pytest.mark.parametrize(
    "line", ["images/train/A\u00c9.PNG", "C:\\set\\Images\\Train\\ae\u0301.png", "./images/train/A%C3%89.png"]
)
def test_a_list_may_spell_an_image_otherwise(tmp_path, caplog, line):
    image(tmp_path / "images" / "train" / "a\u00e9.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a\u00e9.txt").write_text("0 .5 .5 .25 .5\n")
    (tmp_path / "train.txt").write_text(f"{line}\n", encoding="utf-8")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    assert len(YoloSource(tmp_path / "data.yaml")[0].boxes) == 1
    assert "a\u00e9.png)" in caplog.text
    image(tmp_path / "images" / "train" / "A\u00e9.png")  # a second one that is spelt alike
    with pytest.raises(ValueError, match=r"1 images of the list .* do not exist"):
        YoloSource(tmp_path / "data.yaml")
