"""`kfpn data`: what is there, what was left out, a contact sheet, and nothing among the data."""

import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kfpn.cli.command_line import main
from kfpn.cli.commands import run
from kfpn.cli.options import LookAtData
from kfpn.config.presets import preset
from kfpn.config.run import Config, InputConfig, to_dict
from kfpn.data.formats import open_source
from kfpn.data.object_sizes import describe_objects, example_images
from kfpn.data.own_split import part_of, validation_images
from kfpn.data.pipeline import train_batches
from kfpn.plotting.contact_sheet import COLUMNS, GAP, TILE, Tile, draw_contact_sheet
from kfpn.plotting.draw_boxes import class_color


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Returns a folder with a table of boxes; the current folder and the cache are others."""
    root = tmp_path / "photos"
    root.mkdir()
    rows = []
    for i in range(12):
        Image.new("RGB", (200, 100)).save(root / f"{i}.png")
        rows += [f"{i}.png,10,20,50,60,{'rare' if i == 7 else 'cat'}", f"{i}.png,0,0,100,100,cat"]
    (root / "boxes.csv").write_text("image,x1,y1,x2,y2,class\n" + "\n".join(rows) + "\n0.png,5,5,5,9,cat\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root


def held(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")} | {root: root.stat().st_mtime_ns}


def test_a_folder_is_described_and_drawn_and_nothing_is_written_into_it(folder, capsys, caplog):
    before = held(folder)
    assert run(LookAtData(str(folder))) == 0
    out = capsys.readouterr().out
    assert f"csv:{folder}/boxes.csv: 12 images of 200 x 100 pixels, 2 classes, 24 objects" in out
    assert "boxes without area, left out: 1 (first: " in out
    assert "sides of objects in pixels: 40 to 100, half of them below 70" in out
    assert "small (below 32) 0, medium 12, large (from 96) 12" in out
    assert "objects an image: 2 to 2, 2.0 on average" in out
    assert "photos-contact.png: 12 of 12 images with their boxes" in out
    assert "no validation split: a tenth of the images is kept to evaluate on, 2 of 12 (see --val-share" in out
    assert (
        "AP is measured on 2 images: with fewer than 30 it is a rough guess; half of the 12 images are not enough"
        in out
    )
    assert f"{folder}: read as a table of boxes, csv:{folder}/boxes.csv" in caplog.text
    assert Image.open("photos-contact.png").format == "PNG"
    assert held(folder) == before


def test_a_sheet_is_never_written_into_the_folder(folder, capsys, monkeypatch, tmp_path):
    before = held(folder)
    for output in (folder / "sheet.png", folder / "sub" / ".." / "sheet.jpg"):
        (folder / "sub").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="output must lie outside of the data"):
            run(LookAtData(str(folder), str(output)))
    (folder / "sub").rmdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(LookAtData(".", images=3)) == 0
    assert f"{tmp_path}/photos-contact.png: 3 of 12 images" in capsys.readouterr().out
    assert held(folder).keys() == before.keys()
    assert (tmp_path / "photos-contact.png").exists()


def test_the_place_of_the_sheet_is_checked_before_the_data_are_opened(folder):
    for output in ("sheet.txt", "nowhere/sheet.png", os.curdir):
        with pytest.raises(ValueError, match="output must"):
            run(LookAtData(str(folder), output))


def test_data_without_a_box_are_shown_and_then_refused(folder, capsys):
    rows = (folder / "boxes.csv").read_text().splitlines()
    (folder / "boxes.csv").write_text("\n".join([rows[0], "0.png,5,5,5,9,cat"]))
    with pytest.raises(ValueError, match="has no box to learn from"):
        run(LookAtData(str(folder)))
    assert "1 image of 200 x 100 pixels" in capsys.readouterr().out


def test_a_split_that_training_will_not_make_is_not_promised(folder, capsys):
    rows = (folder / "boxes.csv").read_text().splitlines()
    (folder / "boxes.csv").write_text("\n".join(rows[:2]))
    assert run(LookAtData(str(folder))) == 0
    out = capsys.readouterr().out
    assert "no validation split: nothing is evaluated without --val-data, for 1 images are too few to keep some" in out
    assert "rough guess" not in out


def test_a_folder_without_a_training_split_says_what_train_takes(tmp_path, folder, capsys):
    (tmp_path / "both").mkdir()
    for split in ("val", "test"):
        (tmp_path / "both" / f"{split}.csv").write_text((folder / "boxes.csv").read_text())
    for image in folder.glob("*.png"):
        image.rename(tmp_path / "both" / image.name)
    assert run(LookAtData(str(tmp_path / "both"))) == 0
    assert (
        f"no training split: kfpn train takes this data set only by a split's name, --data csv:{tmp_path}/both/val.csv"
        in capsys.readouterr().out
    )
    assert run(LookAtData(f"{tmp_path / 'both'},test")) == 0
    assert "no training split" not in capsys.readouterr().out


def test_the_chosen_images_show_rare_classes_and_are_spread(folder):
    source = open_source(str(folder))
    assert 7 in example_images(source, 2)
    assert len(set(example_images(source, 5))) == 5
    assert example_images(source, 50) == list(range(12))
    assert describe_objects(source).count("\n") == 1


def test_a_sheet_shows_boxes_in_the_colours_of_their_classes(tmp_path):
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = np.array([[10, 20, 90, 120], [0, 0, 50, 10]], np.float32)
    tile = Tile(image, boxes, np.array([1, 0]), np.array([False, True]), "a.png: 1 object \u7532")
    path = tmp_path / "sheet.png"
    draw_contact_sheet("title\n", iter([tile] * 5), ["cat", "dog"], path)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[1] == COLUMNS * TILE + (COLUMNS + 1) * GAP
    top = int(np.flatnonzero((sheet[:, GAP + TILE // 2] == 0).all(axis=1))[0])
    zoom = TILE / 200
    assert sheet[top + round(10 * zoom), GAP + round(60 * zoom)].tolist() == list(class_color(1))
    assert sheet[top + round(25 * zoom), GAP].tolist() == [128, 128, 128]
    draw_contact_sheet("t", [tile], [str(i) for i in range(100)], Path(tmp_path, "sheet.jpg"))
    assert Image.open(tmp_path / "sheet.jpg").format == "JPEG"


def test_an_augmented_sheet_shows_the_first_images_of_training_as_the_network_gets_them(folder, capsys, monkeypatch):
    Path("my_yellow.py").write_text(
        "def yellow(image, boxes, labels, masks, generator):\n    image[:] = 255, 255, 0\n    return image, boxes, labels, masks\n"
    )
    monkeypatch.setattr("sys.path", list(sys.path))
    options = InputConfig(short_side=32, long_side=64, flip_vertical=1.0, crop=1.0, repeat_threshold=0.5)
    tiles = []
    monkeypatch.setattr(
        "kfpn.cli.data_report.draw_contact_sheet", lambda title, shown, names, path: tiles.extend([title, *shown])
    )
    command = LookAtData(
        str(folder), images=6, augmented=True, augment="my_yellow:yellow", seed=3, batch_size=4, input=options
    )
    assert run(command) == 0
    title, *shown = tiles
    assert title == f"csv:{folder}/boxes.csv (training part), as training sees it"
    out = capsys.readouterr().out
    assert "takes 1 image of rare classes up to 2.2 times an epoch" in out or "rare" not in out
    assert "photos-contact.png: the first 6 images of training, resized and augmented, with their boxes" in out
    assert len(shown) == 6
    source = open_source(str(folder))
    part = part_of(source, np.flatnonzero(~validation_images(source, 0.1, 3, asked=False)), "training part")
    batches = train_batches(part, Config(data="d", seed=3, batch_size=4, input=options, augment="my_yellow:yellow"))
    (first, second) = itertools.islice(batches.as_numpy_iterator(), 2)
    for number, tile in enumerate(shown):
        batch, row = (first, number) if number < 4 else (second, number - 4)
        height, width = batch["image_sizes"][row]
        assert tile.image.shape == (height, width, 3)
        assert (tile.image == (255, 255, 0)).all()
        real = batch["gt_labels"][row] >= 0
        assert tile.boxes.tolist() == batch["gt_boxes"][row][real].tolist()
        assert tile.caption.endswith(f"{real.sum()} object{'' if real.sum() == 1 else 's'}, {width} x {height}")


def test_the_options_of_an_augmented_sheet_come_from_the_line_a_run_or_a_preset(folder, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr("kfpn.cli.command_line.run", lambda command: commands.append(command) or 0)
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    config = Config(seed=7, batch_size=3, augment="a:b", input=InputConfig(short_side=96, long_side=96, crop=0.5))
    (run_folder / "config.json").write_text(json.dumps(to_dict(config)))
    line = ["data", str(folder), "--augmented"]
    for more in ([], ["--workdir", str(run_folder), "--input.turn", ".5"], ["--preset", "coco", "--input.crop", "1"]):
        assert main(line + more) == 0
    plain, of_run, of_preset = commands
    assert plain.input == preset("shapes").input
    assert of_run.input == dataclasses.replace(config.input, turn=0.5)
    assert (of_run.seed, of_run.batch_size, of_run.augment) == (7, 3, "a:b")
    assert of_preset.input == InputConfig(crop=1.0)
    assert [command.data for command in commands] == [str(folder)] * 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--input.crop", ".5"],
            "augmented must be on for options of training, got --input.crop alone: add --augmented",
        ),
        (["--workdir=runs/a"], "augmented must be on for options of training, got --workdir=runs/a alone"),
        (["--augmented", "--workdir", "w", "--preset", "coco"], "preset must be left out with workdir, got coco"),
        (["--augmented", "--workdir", "gone"], "gone"),
        (["--augmented", "--augment", "mine.py:f"], "augment must be module:function, got 'mine.py:f': write mine:f"),
        (
            ["--augmented", "--augment", "gone_module:f"],
            "augment must name a module that is there, got 'gone_module:f'",
        ),
        (["--augmented", "--input.crop", "2"], "input.crop must lie in 0..1, got 2.0"),
    ],
)
def test_options_of_an_augmented_sheet_that_cannot_be_are_one_line(folder, args, message, capsys):
    assert main(["data", str(folder), *args]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
