"""Writes pictures and lists of detections beside files that are there already: a user's own files stay as they are."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from kfpn.data.image import load_picture
from kfpn.data.jpeg_fraction import whole_image
from kfpn.inference.detections import Detections
from kfpn.inference.earlier_output import is_own_picture
from kfpn.inference.images_of_user import picture_paths
from kfpn.inference.predict_output import PredictOutput
from kfpn.inference.user_inputs import UserInput, UserPicture
from tests.modeling import tiny

PIXELS = tiny.image(40, 60)
ONE = Detections(
    np.array([[1, 2, 30, 40]], np.float32), np.array([0.9], np.float32), np.array([0], np.int32), ("ant",), (40, 60)
)


def write(folder, *names, detections=ONE):
    """Writes the pictures of images of these names, as `kfpn predict` does."""
    inputs = [UserInput(str(name), "image") for name in names]
    with PredictOutput(folder, inputs) as output:
        for number, one in enumerate(inputs, start=1):
            output.add(UserPicture(one, number, whole_image(PIXELS), PIXELS), detections)


def test_a_picture_of_the_user_stays_and_one_of_an_earlier_command_is_replaced(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    mine = (tmp_path / "a.png").read_bytes()
    (tmp_path / "c.png").mkdir()
    for _ in range(2):
        write(tmp_path, "photos/a.jpg", "photos/b.jpg", "photos/c.jpg")
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["a-2.png", "a.png", "b.png", "c-2.png", "c.png", "detections.json"]
        assert (tmp_path / "a.png").read_bytes() == mine
    np.testing.assert_array_equal(load_picture(tmp_path / "b.png"), ONE.draw(PIXELS))
    assert [row["file_name"][-5] for row in json.loads((tmp_path / "detections.json").read_text())] == ["a", "b", "c"]


def test_a_video_says_that_the_command_made_it(tmp_path):
    pytest.importorskip("av", reason="needs PyAV, the extra video")
    from fractions import Fraction

    from kfpn.inference.video_writer import VideoWriter

    video = VideoWriter(tmp_path / "long.mp4", Fraction(10))
    for number in range(40):
        video.add(np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8), number / 10)
    video.close()
    assert (tmp_path / "long.mp4").stat().st_size > 2 * 65_536
    assert is_own_picture(tmp_path / "long.mp4")


def test_two_commands_at_once_write_whole_files_and_touch_no_other(tmp_path, monkeypatch):
    for name in ("picture.tmp", "detections.json.tmp"):
        (tmp_path / name).write_text("mine")
    inputs = [UserInput("a.jpg", "image")]
    picture = UserPicture(inputs[0], 1, whole_image(PIXELS), PIXELS)
    own, other = os.getpid(), os.getpid() + 1
    outputs = []
    for process in (own, other):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        outputs.append(PredictOutput(tmp_path, inputs))
    for output in (*outputs, outputs[0]):
        output.add(picture, ONE)
    for output in outputs:
        with output:
            pass
    assert len(json.loads((tmp_path / "detections.json").read_text())) == 1  # those of the command that ended last
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.png", "detections.json", "detections.json.tmp", "picture.tmp",
    ]  # fmt: skip
    assert (tmp_path / "picture.tmp").read_text() == (tmp_path / "detections.json.tmp").read_text() == "mine"


def test_detections_of_another_program_are_not_replaced(tmp_path):
    write(tmp_path, "a.jpg")
    write(tmp_path, "a.jpg", detections=ONE[:0])  # a list of an earlier command
    write(tmp_path, "a.jpg")  # an empty one
    for other in ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "notes"):
        (tmp_path / "detections.json").write_text(other)
        with pytest.raises(
            ValueError, match=r"output must be a folder without other files of detections, got '.*json'"
        ):
            write(tmp_path, "b.jpg")
        assert (tmp_path / "detections.json").read_text() == other
        assert not (tmp_path / "b.png").exists()


def test_names_that_differ_in_case_or_in_the_form_of_accents_have_pictures_of_their_own(tmp_path):
    paths = [
        tmp_path / "x" / "A\u0301.jpg",
        tmp_path / "y" / "\u00e1.jpg",
        tmp_path / "B.PNG",
        tmp_path / "y" / "b.jpg",
    ]
    names = [path.name for path in picture_paths(paths, tmp_path).values()]
    assert names == ["A\u0301.png", "\u00e1-2.png", "B-2.png", "b-3.png"]


def test_ctrl_c_while_a_picture_is_written_leaves_no_part_of_one(tmp_path, monkeypatch):
    write(tmp_path, "a.jpg")
    before = (tmp_path / "a.png").read_bytes()

    def interrupted(_, file, *args, **options):
        file.write_bytes(before[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "a.jpg", "b.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "detections.json"]
    assert (tmp_path / "a.png").read_bytes() == before
