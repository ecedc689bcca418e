"""Runs the code blocks of the pages: all but those that give a reason not to. They share one folder and one small detector."""

import dataclasses
import json
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from PIL import Image, ImageDraw

import kfpn
from docs.site.pages import ROOT, blocks_of, pages_of
from kfpn.cli import main
from kfpn.config.presets import preset
from kfpn.config.run import InputConfig
from kfpn.modeling.segment_submodels import build_segment_submodels
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from tests.docs.commands import SHELLS, calls_of, command_lines
from tests.eager import eagerly
from tests.modeling import tiny

RUNS = ("shapes", "mine", "masks", "cars", "my_folder", "before", "after")
"""Names that pages give to work directories of detectors. Here all of them are one."""
SEGMENTS = "objects"
"""The name that pages give to the work directory of a run with `--task segments`."""


def runnable():
    """Returns page -> its blocks that run, for pages that have any."""
    found_in = {
        page.relative_to(ROOT).as_posix(): [
            block
            for block in blocks_of(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())
            if block.reason is None and block.language in (*SHELLS[:3], "python")
        ]
        for page in pages_of()
    }
    return {page: blocks for page, blocks in found_in.items() if blocks}


def write_photographs(folder, names):
    """Writes photographs with two objects each, and returns what COCO says of them."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number, name in enumerate(names, start=1):
        generator = np.random.default_rng(number)
        picture = Image.fromarray(generator.integers(0, 80, (200, 300, 3), dtype=np.uint8))
        for label, color in ((1, "red"), (2, "yellow")):
            x, y = (int(corner) for corner in generator.integers(0, (200, 100)))
            corners = [x, y, x + 90, y, x + 90, y + 80, x, y + 80]
            ImageDraw.Draw(picture).polygon(corners, fill=color)
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0,
                                "bbox": [x, y, 90, 80], "area": 7200, "segmentation": [corners]})  # fmt: skip
        picture.save(folder / name)
        images.append({"id": number, "file_name": name, "width": 300, "height": 200})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def save_run(path):
    """Writes a work directory as a training of `my_folder` with masks leaves it, with random weights: a training takes too long here."""
    model = tiny.config(num_classes=2, mask=True, max_detections=10)
    save_network(path, model, build_submodels)


def save_segments_run(path):
    """Writes one as a training of `my_folder` with `--task segments` leaves it."""
    model = tiny.config(num_classes=2, task="segments", segment_width=32, max_segments=60)
    save_network(path, model, build_segment_submodels)


def save_network(path, model, build):
    keras.utils.set_random_seed(0)
    config = dataclasses.replace(
        preset("shapes"), data="my_folder", workdir=str(path), model=model, input=InputConfig(64, 96)
    )
    submodels = build(model)
    tiny.shake(submodels.weights_model)
    workdir = Workdir(path)
    path.mkdir(parents=True)
    workdir.prepare(config, ("cat", "dog"), (1, 2), "by hand")
    workdir.save_weights(submodels.weights_model)
    rows = ({"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 1, "AP": 0.3, "AP50": 0.5})
    workdir.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("pages")
    names = [f"im{number}.jpg" for number in range(10)]
    (folder / "my_folder" / "annotations.json").write_text(write_photographs(folder / "my_folder" / "images", names))
    (folder / "test.json").write_text(write_photographs(folder / "images", names[:2]))
    write_photographs(folder / "photos", names[:2])
    shutil.copy(folder / "photos" / names[0], folder / "photo.jpg")
    shutil.copytree(ROOT / "docs" / "images", folder / "docs" / "images")
    save_run(folder / "runs" / RUNS[0])
    save_segments_run(folder / "runs" / SEGMENTS)
    for name in RUNS[1:]:
        (folder / "runs" / name).symlink_to(folder / "runs" / RUNS[0], target_is_directory=True)
    return folder


@pytest.fixture(scope="module")
def done():
    """Returns the calls that were made: pages repeat one another, and a call on one run stands for the same on its other names."""
    return set()


@pytest.mark.parametrize("page", list(runnable()))
def test_the_blocks_of_a_page_run(page, folder, done, monkeypatch):
    monkeypatch.chdir(folder)
    namespace = {"__name__": page}
    for block in runnable()[page]:
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), namespace)
            continue
        for line in command_lines(block):
            calls = calls_of(line)
            if not calls:
                subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, cwd=folder)
            for call in calls:
                words = tuple(re.sub(rf"^runs/({'|'.join(RUNS)})$", "runs/RUN", word) for word in call)
                if words not in done:
                    assert main(call) == 0, f"{block.place}: {line}"
                    done.add(words)


def test_what_the_pages_promise_is_there(folder, done, monkeypatch):
    """Checks some of what the blocks wrote, so that a block that does nothing is noticed."""
    if not done:
        pytest.skip("needs the blocks of the pages to have run")
    monkeypatch.chdir(folder)
    rows = json.loads((folder / "found" / "detections.json").read_text())
    assert isinstance(rows, list)
    assert len(list((folder / "found").glob("*.png"))) >= 2
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "photo_pyramid.png").is_file()
    assert isinstance(keras.models.load_model("det.keras"), keras.Model)
    assert kfpn.load_detector("runs/mine").class_names == ("cat", "dog")
