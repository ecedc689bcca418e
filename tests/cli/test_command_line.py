import io
import json
import logging
import os
import subprocess
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn import __version__
from kfpn.cli import command_line as cli
from kfpn.config.presets import preset
from kfpn.config.run import Config, to_dict
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.record import Record
from kfpn.inference.images_of_user import find_images, picture_paths

ROOT = Path(__file__).resolve().parents[2]


def train_config(monkeypatch, *args):
    """Returns the config with which `kfpn train ARGS` calls the engine; with the preset auto it is not complete yet."""
    import kfpn.training.train

    configs = []
    monkeypatch.setattr(kfpn.training.train, "train", lambda config, choose=None: configs.append(config))
    assert cli.main(["train", *args]) == 0
    (config,) = configs
    return config


class TopLeft:
    """Stands in for a detector: detects in any image a cat of score .9 in the upper left quarter, and a dog of score .3 everywhere."""

    class_names = ("cat", "dog")
    category_ids = (17, 18)

    def __call__(self, inputs):
        size = tf.cast(inputs["image_sizes"], tf.float32)
        origin = tf.zeros_like(size)
        rows = tf.shape(size)[0]
        return {
            "boxes": tf.stack([tf.concat([origin, size / 2], 1), tf.concat([origin, size], 1)], axis=1),
            "scores": tf.tile([[0.9, 0.3]], [rows, 1]),
            "labels": tf.tile([[0, 1]], [rows, 1]),
            "num_detections": tf.fill([rows], 2),
        }


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns a work directory whose detector is `TopLeft`."""
    import kfpn.runs.load

    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_dict(preset("shapes"))))
    monkeypatch.setattr(kfpn.runs.load, "load_trained_detector", lambda workdir, *_, **__: TopLeft())
    return folder


def save(path, size=(100, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "gray").save(path)
    return path


# ------------------------------------------------------------------------------------------------ options


def test_train_without_options_is_the_shapes_preset(monkeypatch):
    assert train_config(monkeypatch) == preset("shapes")


def test_the_shapes_with_masks_take_the_steps_of_the_preset(monkeypatch):
    config = train_config(monkeypatch, "--mask")
    assert (config.steps, config.model.mask) == (preset("shapes").steps, True)
    assert train_config(monkeypatch, "--mask", "--steps", "7").steps == 7


def test_every_field_of_the_config_is_an_option(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--help"])
    assert stop.value.code == 0
    words = capsys.readouterr().out.replace("_", "-")

    def names(values, prefix=""):
        for key, value in values.items():
            yield from names(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"--{prefix}{key}"]

    options = list(names(to_dict(Config())))
    assert len(options) > 60
    assert [name for name in options if name.replace("_", "-") not in words] == []


def test_options_override_the_preset(monkeypatch):
    config = train_config(
        monkeypatch, "--preset", "coco", "--steps", "7", "--model.backbone", "resnet18", "--optimizer.clip-norm", "5",
        "--input.scale-jitter", "0.5", "2", "--no-jit-compile", "--strategy", "one_device",
    )  # fmt: skip
    assert (config.preset, config.steps, config.strategy, config.jit_compile) == ("coco", 7, "one_device", False)
    assert config.model.backbone == "resnet18"
    assert config.optimizer.clip_norm == 5.0
    assert config.input.scale_jitter == (0.5, 2.0)
    assert config.input.short_side == preset("coco").input.short_side


@pytest.mark.parametrize(
    ("args", "workdir"),
    [
        ([], "runs/shapes"),
        (["--preset", "coco"], "runs/coco"),
        (["--preset=coco", "--data", "voc:/photos/bccd"], "runs/bccd"),
        (["--data", "voc:photos/bccd,train"], "runs/bccd"),
        (["--data=coco:cars/train.json,cars/images"], "runs/cars-train"),
        (["--data", "tfds:coco/2017,train"], "runs/coco-2017"),
        (["--data", "shapes,train"], "runs/shapes-train"),
        (["--data", "voc:bccd", "--workdir", "here"], "here"),
        (["--data", "shapes", "--data", "voc:bccd"], "runs/bccd"),
    ],
)
def test_the_work_directory_is_named_after_the_data(monkeypatch, args, workdir):
    assert train_config(monkeypatch, *args).workdir == workdir


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--step", "3"], ["--step", "Perhaps you meant", "--steps"]),
        (["train", "--model.backbon", "resnet18"], ["--model.backbon", "Perhaps you meant", "--model.backbone"]),
        (["train", "--steps", "0"], ["steps must be an integer of at least 1, got 0"]),
        (["train", "--steps", "many"], ["--steps", "many"]),
        (["train", "--preset", "voc"], ["voc", "shapes", "coco"]),
        (["train", "--model.backbone", "vgg"], ["vgg", "resnet50"]),
        (["tran"], ["tran", "train"]),
        (
            ["train", "--optimizer.momentum", "2"],
            ["kfpn: error: optimizer.momentum must lie in 0..1 and not be 1, got 2"],
        ),
        (["evaluate"], ["--workdir"]),
        (
            ["evaluate", "--workdir", "w", "--scales", "480,big"],
            ["scales must be whole numbers separated by commas, like 480,640,800, got '480,big'"],
        ),
        (["evaluate", "--workdir", "w", "--scales", "480,16"], ["scales must be integers of at least 32", "480,16"]),
        (
            ["predict", "x", "--workdir", "w", "--output", "o", "--scales", "64,64"],
            ["scales must differ from each other, got 64,64"],
        ),
        (["predict", "--workdir", "w", "--output", "o"], ["images must name at least one file"]),
        (
            ["predict", "", "--workdir", "w", "--output", "o"],
            ["images must be a name, got an empty one: is a variable"],
        ),
        (["predict", "x", "--workdir", "w", "--output="], ["output must be a name, got an empty one: is a variable"]),
        (
            ["predict", "x", "--workdir", "w", "--output", "o", "--min-score", "3"],
            ["min_score must lie in 0..1, got 3"],
        ),
    ],
)
def test_the_message_for_a_wrong_option_names_what_is_wrong(capsys, args, words):
    try:
        code = cli.main(args)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    # The message is printed in a frame, which is taken away here.
    message = " ".join(capsys.readouterr().err.replace("│", " ").split())
    for word in words:
        assert word in message


def test_a_name_that_is_not_utf8_can_be_printed(monkeypatch):
    monkeypatch.setattr(cli, "run", lambda command: print(os.fsdecode(b"caf\xe9.png")) or 0)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert cli.main(["list-pretrained"]) == 0
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"caf\\udce9.png\n"


def test_help_and_wrong_options_do_not_import_tensorflow():
    code = (
        "import sys; from kfpn import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules], file=sys.stderr)"
    )
    for args in (["--help"], ["train", "--help"], ["train", "--stepz", "3"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stderr.splitlines()[-1] == "[]", args


def test_train_py_and_the_module_are_the_same_command():
    env = {**os.environ, "COLUMNS": "100"}
    outputs = [
        subprocess.run([sys.executable, *args, "--help"], capture_output=True, text=True, cwd=ROOT, check=True, env=env)
        for args in (["train.py"], ["-m", "kfpn", "train"])
    ]
    assert outputs[0].stdout == outputs[1].stdout
    assert "--strategy {one_device,mirrored,multi_worker,tpu,parameter_server}" in outputs[0].stdout


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"kfpn {__version__}\n"


# ------------------------------------------------------------------------------------------------- errors


def test_an_error_is_one_line_and_code_2(tmp_path, capsys):
    missing = tmp_path / "none"
    for args in (["evaluate"], ["predict", str(save(tmp_path / "a.png")), "--output", str(tmp_path / "out")]):
        assert cli.main([*args, "--workdir", str(missing)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("kfpn: error: ")
        assert str(missing) in lines[0]


def test_kfpn_debug_shows_the_traceback_of_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("KFPN_DEBUG", "1")
    with pytest.raises(ValueError, match="workdir"):
        cli.main(["evaluate", "--workdir", str(tmp_path / "none")])


def test_ctrl_c_prints_one_line_and_no_traceback(monkeypatch, capsys):
    import kfpn.training.train

    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(kfpn.training.train, "train", interrupted)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "kfpn: stopped\n"


def test_warnings_are_printed_as_one_line_each_like_errors(monkeypatch, capsys):
    import kfpn.training.train

    def warned(config):
        warnings.warn("no validation data", stacklevel=1)
        logging.getLogger("kfpn").warning("a box %d", 3)

    monkeypatch.setattr(kfpn.training.train, "train", warned)
    with warnings.catch_warnings():
        # pytest records warnings. Here they are written to stderr, as they are outside of pytest.
        warnings.showwarning = lambda *args: sys.stderr.write(warnings.formatwarning(*args[:4]))
        warnings.simplefilter("always")
        assert cli.main(["train"]) == 0
    assert capsys.readouterr().err == "kfpn: warning: no validation data\nkfpn: warning: a box 3\n"


# ----------------------------------------------------------------------------------------------- evaluate


def test_evaluate_names_a_place_that_takes_no_file_before_it_reads_the_run(tmp_path, capsys):
    for place in (tmp_path, tmp_path / "none" / "figures.json"):
        assert cli.main(["evaluate", "--workdir", str(tmp_path / "w"), "--json", str(place)]) == 2
        assert str(place) in capsys.readouterr().err


def test_evaluate_prints_and_writes_the_figures(run, tmp_path, monkeypatch, capsys):
    import kfpn.data.formats

    record = Record(
        image=np.zeros((60, 100, 3), np.uint8),
        image_id=5,
        height=60,
        width=100,
        boxes=np.array([[0, 0, 30, 50]], np.float32),
        labels=np.zeros(1, np.int32),
        crowd=np.zeros(1, bool),
        areas=np.array([1500], np.float32),
        name="one",
    )
    source = IterableSource([record], class_names=["cat", "dog"], category_ids=[17, 18])
    opened = []
    checks = []

    def open_source(data, split, check_images, masks):
        opened.append((data, split))
        checks.append(check_images)
        return source

    monkeypatch.setattr(kfpn.data.formats, "open_source", open_source)
    figures, detections = tmp_path / "figures.json", tmp_path / "detections.json"
    args = ["evaluate", "--workdir", str(run), "--json", str(figures), "--detections", str(detections)]
    assert cli.main(args) == 0
    assert opened == [("shapes,validation", "validation")]
    written = json.loads(figures.read_text())
    assert written["AP"] == pytest.approx(1.0)
    assert written["APs"] is None
    assert written["per_class"] == {"cat": pytest.approx(1.0), "dog": None}
    assert [row["category_id"] for row in json.loads(detections.read_text())] == [17, 18]
    out = capsys.readouterr().out
    assert "AP50 1.0000" in out
    assert "cat  1.0000" in out
    assert cli.main([*args, "--data", "voc:there", "--split", "test"]) == 0
    assert opened[-1] == ("voc:there", "test")
    assert checks == ["once", "once"]  # as the run did
    assert cli.main([*args, "--check-images", "full"]) == 0
    assert checks[-1] == "full"


def test_evaluate_with_proposals_adds_their_recall(run, tmp_path, monkeypatch, capsys):
    import kfpn.data.formats
    import kfpn.inference.evaluate
    import kfpn.runs.load

    record = Record(
        np.zeros((60, 100, 3), np.uint8), 5, 60, 100, np.array([[0, 0, 30, 50]], np.float32), np.zeros(1, np.int32),
        np.zeros(1, bool), np.array([1500], np.float32), "one",
    )  # fmt: skip
    source = IterableSource([record], class_names=["cat", "dog"])
    recall = {"AR@100": 0.25, "AR@1000": 0.5, "ARs@1000": None, "ARm@1000": 0.5, "ARl@1000": None}
    monkeypatch.setattr(kfpn.data.formats, "open_source", lambda data, split, *_: source)
    monkeypatch.setattr(kfpn.runs.load, "load_proposals_model", lambda workdir, precision: None)
    monkeypatch.setattr(kfpn.inference.evaluate, "evaluate_proposals", lambda *_: recall)
    figures = tmp_path / "figures.json"
    assert cli.main(["evaluate", "--workdir", str(run), "--proposals", "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["proposals"] == recall
    line = "proposals: AR@100 0.2500  AR@1000 0.5000  ARs@1000 -  ARm@1000 0.5000  ARl@1000 -"
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_evaluate_with_an_image_pyramid_reports_its_passes_and_its_time(run, tmp_path, monkeypatch, capsys):
    import kfpn.data.formats

    record = Record(
        image=np.zeros((60, 100, 3), np.uint8),
        image_id=5,
        height=60,
        width=100,
        # The box of the stand-in's cat, and the box of the cat that it detects in the mirrored image.
        boxes=np.array([[0, 0, 30, 50], [0, 50, 30, 100]], np.float32),
        labels=np.zeros(2, np.int32),
        crowd=np.zeros(2, bool),
        areas=np.array([1500, 1500], np.float32),
        name="one",
    )
    source = IterableSource([record], class_names=["cat", "dog"], category_ids=[17, 18])
    monkeypatch.setattr(kfpn.data.formats, "open_source", lambda data, split, *_: source)
    figures, detections = tmp_path / "figures.json", tmp_path / "detections.json"
    args = ["evaluate", "--workdir", str(run), "--json", str(figures), "--detections", str(detections)]

    assert cli.main(args) == 0
    usual = json.loads(figures.read_text())
    assert usual["AR100"] == pytest.approx(0.5)
    assert "image pyramid" not in capsys.readouterr().out

    assert cli.main([*args, "--scales", "96,128", "--flip"]) == 0
    written = json.loads(figures.read_text())
    assert list(written) == [*usual, "image_pyramid"]
    assert written["AR100"] == pytest.approx(1.0)
    cost = written["image_pyramid"]
    assert (cost["scales"], cost["flip"], cost["passes"]) == ([96, 128], True, 4)
    assert cost["seconds_per_image"] > 0
    assert "image pyramid: 4 passes (96, 128; each mirrored too), " in capsys.readouterr().out
    # Two cats, and one dog: both images have the dog at the same place.
    assert sorted(row["category_id"] for row in json.loads(detections.read_text())) == [17, 17, 18]


def test_evaluating_a_run_without_validation_data_asks_for_data(run, capsys):
    config = to_dict(preset("shapes")) | {"data": "coco:cars.json"}
    (run / "config.json").write_text(json.dumps(config))
    assert cli.main(["evaluate", "--workdir", str(run)]) == 2
    assert "coco:cars.json has no validation split: say what to evaluate on with --data" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ predict


def test_predict_writes_pictures_and_coco_results(run, tmp_path, capsys):
    image, output = save(tmp_path / "photos" / "a.jpg"), tmp_path / "deep" / "out"
    assert cli.main(["predict", str(image), "--workdir", str(run), "--output", str(output)]) == 0
    assert Image.open(output / "a.png").size == (100, 60)
    (row,) = json.loads((output / "detections.json").read_text())
    assert row["bbox"] == pytest.approx([0, 0, 50, 30], abs=0.01)  # x, y, width, height
    assert (row["category_id"], row["category_name"], row["file_name"]) == (17, "cat", str(image))
    assert row["score"] == pytest.approx(0.9)
    assert "objects: 1; images: 1 of 1" in capsys.readouterr().out


def test_min_score_decides_which_detections_are_kept(run, tmp_path):
    image = save(tmp_path / "a.jpg")
    for score, count in (("0", 2), ("0.3", 2), ("0.95", 0)):
        assert (
            cli.main(["predict", str(image), "--workdir", str(run), "--output", str(tmp_path), "--min-score", score])
            == 0
        )
        assert len(json.loads((tmp_path / "detections.json").read_text())) == count


def test_an_image_of_more_than_max_pixels_is_named_and_the_others_are_predicted(run, tmp_path, capsys):
    images = [str(save(tmp_path / "large.png", (100, 61))), str(save(tmp_path / "good.png"))]
    args = ["predict", *images, "--workdir", str(run), "--output", str(tmp_path / "out"), "--max-pixels"]
    assert cli.main([*args, "6000"]) == 1
    written = capsys.readouterr()
    assert "large.png: is 100 x 61, which are more pixels than the 6,000 that are decoded" in written.err
    assert "images: 1 of 2" in written.out
    assert cli.main([*args, "0"]) == 2
    assert "max_pixels must lie in 1..2147483647, got 0" in capsys.readouterr().err


def test_predict_also_detects_in_the_mirrored_image_and_at_other_sizes(run, tmp_path, capsys):
    args = ["predict", str(save(tmp_path / "a.jpg")), "--workdir", str(run), "--output", str(tmp_path)]
    assert cli.main([*args, "--flip"]) == 0
    rows = json.loads((tmp_path / "detections.json").read_text())
    for row, box in zip(rows, ([0, 0, 50, 30], [50, 0, 50, 30]), strict=True):
        assert row["bbox"] == pytest.approx(box, abs=0.01)
    output = capsys.readouterr().out
    assert "objects: 2; images: 1 of 1" in output
    assert "image pyramid: 2 passes (128; each mirrored too), " in output
    assert cli.main([*args, "--scales", "64,96,160"]) == 0
    assert len(json.loads((tmp_path / "detections.json").read_text())) == 1
    assert "image pyramid: 3 passes (64, 96, 160), " in capsys.readouterr().out


def test_bad_images_are_named_and_the_others_are_predicted(run, tmp_path, capsys):
    good, text, missing = save(tmp_path / "good.png"), tmp_path / "text.jpg", tmp_path / "missing.jpg"
    text.write_text("not an image")
    cut = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:1500])
    output = tmp_path / "out"
    args = ["predict", *map(str, (text, cut, missing, good)), "--workdir", str(run), "--output", str(output)]
    assert cli.main(args) == 1
    printed = capsys.readouterr()
    for path in (text, cut, missing):
        assert f"kfpn: error: {path}: " in printed.err
    assert str(good) not in printed.err
    assert "images: 1 of 4" in printed.out
    assert sorted(path.name for path in output.iterdir()) == ["detections.json", "good.png"]


def clip(path, count=12):
    """Writes a video of gray frames of 100 x 60, ten a second; skips the test without PyAV."""
    pytest.importorskip("av", reason="needs PyAV, the extra video")
    from kfpn.inference.video_writer import VideoWriter

    video = VideoWriter(path, Fraction(10))
    for number in range(count):
        video.add(np.full((60, 100, 3), 128, np.uint8), number / 10)
    video.close()
    return path


def test_predict_writes_a_video_with_boxes_and_rows_with_frame_numbers(run, tmp_path, capsys):
    from kfpn.inference.video_reader import read_frames

    video, image, output = clip(tmp_path / "clip.mp4"), save(tmp_path / "a.png"), tmp_path / "out"
    args = ["predict", str(video), str(image), "--workdir", str(run), "--output", str(output)]
    assert cli.main(args) == 0
    text = (output / "detections.json").read_text()
    rows = json.loads(text)
    assert text == json.dumps(rows, indent=1) + "\n"
    assert [(row["image_id"], row.get("frame"), row.get("time")) for row in rows] == [
        *((number + 1, number, number / 10) for number in range(12)), (13, None, None)
    ]  # fmt: skip
    assert [row["file_name"] for row in rows] == [str(video)] * 12 + [str(image)]
    drawn = list(read_frames(output / "clip.mp4"))
    assert [round(frame.seconds, 3) for frame in drawn] == [number / 10 for number in range(12)]
    for frame in drawn:  # the outline of the box from (0, 0) to (30, 50), and nothing beyond it
        assert np.abs(frame.pixels[29, 5:45].astype(int) - 128).max(-1).min() > 50
        assert np.abs(frame.pixels[35:, 55:].astype(int) - 128).max() < 8
    printed = capsys.readouterr()
    assert f"objects: 13; images: 1 of 1; videos: 1 of 1, 12 frames; in {output}" in printed.out
    assert " images/s]" in printed.err


def test_of_a_video_that_is_cut_off_the_beginning_is_predicted(run, tmp_path, capsys):
    video, output = clip(tmp_path / "clip.mp4", 40), tmp_path / "out"
    av = pytest.importorskip("av")
    cut = tmp_path / "cut.mkv"  # an MP4 has its index at the end
    with av.open(str(video)) as read, av.open(str(cut), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) * 8 // 10])
    assert (
        cli.main(["predict", str(cut), str(tmp_path / "none.mp4"), "--workdir", str(run), "--output", str(output)]) == 1
    )
    rows = json.loads((output / "detections.json").read_text())
    assert 1 <= len(rows) < 40
    printed = capsys.readouterr()
    assert f"kfpn: warning: {cut}: ended at frame {len(rows) - 1}, at " in printed.err
    assert f"kfpn: error: {tmp_path / 'none.mp4'}: does not exist" in printed.err
    assert f"objects: {len(rows)}; videos: 1 of 2, {len(rows)} frames; in {output}" in printed.out


def test_ctrl_c_leaves_what_was_found_in_complete_files(run, tmp_path, monkeypatch, capsys):
    from kfpn.inference import predict_files
    from kfpn.inference.video_reader import read_frames

    video, output, calls = clip(tmp_path / "clip.mp4"), tmp_path / "out", []
    detect_image = predict_files.detect_image

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return detect_image(*args)

    monkeypatch.setattr(predict_files, "detect_image", interrupted)
    assert cli.main(["predict", str(video), "--workdir", str(run), "--output", str(output)]) == 130
    assert [row["frame"] for row in json.loads((output / "detections.json").read_text())] == [0, 1, 2]
    assert len(list(read_frames(output / "clip.mp4"))) == 3
    assert sorted(path.name for path in output.iterdir()) == ["clip.mp4", "detections.json"]
    assert "kfpn: stopped" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full device of Linux")
def test_a_full_disk_is_one_line_and_what_was_found_before_is_kept(run, tmp_path, monkeypatch, capsys):
    images, output, calls, write = (
        [save(tmp_path / name) for name in ("a.png", "b.png")],
        tmp_path / "out",
        [],
        Image.Image.save,
    )

    def until_full(picture, file, *args, **options):
        calls.append(file)
        write(picture, file if len(calls) == 1 else "/dev/full", *args, **options)

    monkeypatch.setattr(Image.Image, "save", until_full)
    assert cli.main(["predict", *map(str, images), "--workdir", str(run), "--output", str(output)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"kfpn: error: {output / 'b.png'} can't be written: No space left on device" in said
    rows = json.loads((output / "detections.json").read_text())
    assert {row["file_name"] for row in rows} == {str(images[0])}
    assert (output / "a.png").is_file()


def test_an_output_that_is_a_file_is_refused(run, tmp_path, capsys):
    image = save(tmp_path / "a.png")
    assert cli.main(["predict", str(image), "--workdir", str(run), "--output", str(image)]) == 2
    assert f"output must be a folder that can be written, got '{image}': it is a file" in capsys.readouterr().err


def test_folders_and_patterns_are_replaced_by_their_images(tmp_path):
    a, b = save(tmp_path / "a.PNG"), save(tmp_path / "b.jpg")
    bracket = save(tmp_path / "more" / "c[1].jpg")
    (tmp_path / "notes.txt").write_text("")
    assert find_images([str(tmp_path)]) == [a, b]
    assert find_images([str(tmp_path / "*.jpg"), str(b)]) == [b]
    assert find_images([str(bracket)]) == [bracket]
    assert find_images([str(tmp_path / "*.gif")]) == [tmp_path / "*.gif"]
    (tmp_path / "gone.png").symlink_to("nowhere")  # the next images are looked at all the same
    assert find_images([str(tmp_path / "gone.png"), "x" * 5000, str(b)]) == [tmp_path / "gone.png", Path("x" * 5000), b]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "folder.jpg").mkdir()
    with pytest.raises(ValueError, match="empty must hold images"):
        find_images([str(tmp_path / "empty")])


def test_pictures_neither_overwrite_each_other_nor_an_image(tmp_path):
    paths = [tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.jpg", tmp_path / "a.png", tmp_path / "b.jpg"]
    pictures = picture_paths(paths, tmp_path)
    assert [pictures[path].name for path in paths] == ["a-2.png", "a-3.png", "a-4.png", "b.png"]


@pytest.mark.parametrize(
    "error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\ntensor")]
)
def test_memory_that_runs_out_anywhere_is_one_line(monkeypatch, capsys, error):
    def fail(command):
        raise error

    monkeypatch.setattr(cli, "run", fail)
    assert cli.main(["evaluate", "--workdir", "run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("kfpn: error: memory must be enough for `kfpn evaluate`, got no more of it")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("backend", "command", "line"),
    [
        (
            "torch",
            "train --workdir run",
            "KERAS_BACKEND must be tensorflow or jax for kfpn train, got 'torch': unset it",
        ),
        (
            "torch",
            "evaluate --workdir run",
            "KERAS_BACKEND must be tensorflow or jax for this command, got 'torch': unset",
        ),
        ("jax", "export saved_model run out", "KERAS_BACKEND must be tensorflow for this command, got 'jax': unset it"),
    ],
)
def test_another_backend_of_keras_is_refused_before_the_work(backend, command, line, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert cli.main(command.split()) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "option"),
    [
        ("train --steps 1 --workdir gs://b/run", "workdir"),
        ("train --steps 1 --workdir run --data coco:gs://b/a.json", "data"),
        ("train --steps 1 --workdir run --val-data coco:a.json,s3://b/images --data shapes", "data"),
        ("train --steps 1 --workdir run --proposals gs://b/p.npz", "proposals"),
        ("train --steps 1 --workdir run --init https://example.org/w.pth", "init"),
        ("evaluate --workdir gs://b/run", "workdir"),
        ("evaluate --workdir run --json gs://b/f.json", "json"),
        ("evaluate --workdir run --detections gs://b/f.json", "detections"),
        ("predict --workdir run --output out gs://bucket/a.jpg", "images"),
        ("predict --workdir run --output gs://b/out a.jpg", "output"),
        ("predict --workdir gs://b/run --output out a.jpg", "workdir"),
        ("visualize --workdir gs://b/run a.jpg", "workdir"),
        ("replay-nan --workdir gs://b/run", "workdir"),
        ("proposals --workdir run --output gs://b/p.npz", "output"),
        ("import-weights s3://b/w.pth --output run", "weights"),
        ("export saved_model gs://b/run out", "workdir"),
        ("export onnx gs://b/run out.onnx", "workdir"),
        ("benchmark gs://b/run", "targets"),
    ],
)
def test_an_address_is_refused_by_the_name_of_its_option(tmp_path, monkeypatch, capsys, args, option):
    monkeypatch.chdir(tmp_path)
    assert cli.main(args.split()) == 2
    assert f"{option} must be a place on this machine, got the address '" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.name != "run" and ".lock" not in path.name]


def test_a_run_that_was_refused_leaves_no_folder(tmp_path, capsys):
    assert cli.main(["train", "--data", f"coco:{tmp_path}/nope.json", "--workdir", str(tmp_path / "run")]) == 2
    assert "nope.json does not exist" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_settings_of_a_work_directory_are_read_without_starting_tensorflow(monkeypatch, tmp_path):
    """The strategy of several workers and split CPUs must come before anything else that TensorFlow does."""
    from kfpn.weights import identify

    monkeypatch.setattr(identify, "read_trained_weights", lambda *_: pytest.fail("a network was built"))
    config = preset("shapes")
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    for init in (tmp_path, tmp_path / "detector.weights.h5"):
        got = train_config(monkeypatch, "--init", str(init), "--workdir", str(tmp_path / "other"), "--cpu-devices", "2")
        assert (got.model, got.sampling, got.input) == (config.model, config.sampling, config.input)
        assert got.cpu_devices == 2


def test_minutes_leave_evaluations_and_checkpoints_to_the_time_unless_they_are_given(monkeypatch):
    config = train_config(monkeypatch, "--minutes", "2.5")
    assert (config.minutes, config.eval_every, config.checkpoint_every) == (2.5, None, None)
    config = train_config(monkeypatch, "--minutes=4", "--eval-every", "70", "--checkpoint-every", "30")
    assert (config.minutes, config.eval_every, config.checkpoint_every) == (4.0, 70, 30)
    assert train_config(monkeypatch, "--minutes", "None") == preset("shapes")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--minutes", "2", "--steps=90"],
            "minutes must be given without steps, got --minutes 2 and --steps 90: leave one out",
        ),
        (["--minutes", "0"], "minutes must be a positive number, or None, got 0.0"),
        (["--minutes", "inf"], "minutes must be a positive number, or None, got inf"),
        (["--eval-every", "None"], "eval_every must be an integer of at least 1, got None"),
        (["--patience", "0"], "patience must be an integer of at least 1, or None, got 0"),
    ],
)
def test_minutes_and_patience_that_cannot_be_are_refused(capsys, args, words):
    assert cli.main(["train", *args]) == 2
    assert words in capsys.readouterr().err
