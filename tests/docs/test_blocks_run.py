"""Runs the code blocks of the pages: all but those that give a reason not to. They share one folder and one small trained detector."""

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
from tests.docs.commands import SHELLS, calls_of, command_lines

RUNS = ("shapes", "mine", "masks", "cars", "my_folder", "before", "after")
"""Names that pages give to a trained detector. Here all of them are one."""
SMALL = "--preset shapes --mask --steps 2 --batch-size 2 --eval-every 2 --samples 1 --no-jit-compile --input.short-side 64 \
  --input.long-side 96 --model.backbone-width 8 --model.pyramid-channels 16 --model.head-width 32".split()


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes the files that the pages speak of, with a detector that two small steps have trained."""
    folder = tmp_path_factory.mktemp("pages")
    names = [f"im{number}.jpg" for number in range(10)]
    (folder / "my_folder" / "annotations.json").write_text(write_photographs(folder / "my_folder" / "images", names))
    (folder / "test.json").write_text(write_photographs(folder / "images", names[:2]))
    write_photographs(folder / "photos", names[:2])
    shutil.copy(folder / "photos" / names[0], folder / "photo.jpg")
    shutil.copytree(ROOT / "docs" / "images", folder / "docs" / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "--data", "my_folder", "--workdir", f"runs/{RUNS[0]}", *SMALL]) == 0
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
