"""Asks the functions behind the page of the demo, without a browser."""

import json
import shutil
import types
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs the extra demo: pip install 'kfpn[demo]'")

from kfpn.demo.demo_detector import DemoDetector
from kfpn.demo.demo_page import PageAnswers


@pytest.fixture(scope="module")
def answers(small_workdir, tmp_path_factory):
    return PageAnswers(DemoDetector(small_workdir), tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def tried(answers, scenes, tmp_path_factory):
    """Returns two pictures that have one name, and a third."""
    folder = tmp_path_factory.mktemp("uploads")
    paths = []
    for number, scene in enumerate((scenes[0], scenes[1], scenes[1])):
        (folder / str(number)).mkdir()
        paths.append(folder / str(number) / ("other.png" if number == 2 else "scene.png"))
        shutil.copy(scene, paths[-1])
    progress = types.SimpleNamespace(tqdm=lambda given, **_: given)
    pictures, _, _ = answers.look([str(path) for path in paths], None, None, {}, progress)
    assert list(pictures) == paths
    return pictures


def test_saved_rows_of_two_pictures_of_one_name_are_told_apart_as_the_menu_does(answers, tried):
    rows = json.loads(Path(answers.save_rows(tried, 0.3, [])).read_text())
    names = {row["image_id"]: row["file_name"] for row in rows}
    assert names == {1: "scene.png", 2: "scene.png (2)", 3: "other.png"}


def test_an_emptied_number_field_hides_no_detection(answers, tried):
    path, picture = next(iter(tried.items()))
    _, text, rows = answers.show(tried, str(path), None, [])
    count = len(picture.detections)
    assert (len(rows), text) == (count, f"**{count}** of {count} detections are shown")
    assert len(json.loads(Path(answers.save_rows({path: picture}, None, None)).read_text())) == count
    assert answers.draw_pyramid(tried, str(path), None, True) == answers.draw_pyramid(tried, str(path), 0.0, True)
