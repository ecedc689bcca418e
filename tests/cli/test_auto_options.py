"""`kfpn train --data FOLDER`: settings are chosen once the data are open, what is given stays, and a run that exists is not looked at again."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import kfpn
from kfpn import cli
from kfpn.cli import command_line
from kfpn.cli.auto_options import AutoTraining, given_options, is_automatic, kept_options
from kfpn.config.presets import preset
from kfpn.config.run import Config, to_dict
from kfpn.runs.workdir import Workdir


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Returns a folder with a COCO data set of ten images; one box is clipped, which is warned of."""
    folder = tmp_path_factory.mktemp("auto") / "photos"
    folder.mkdir()
    images, annotations = [], []
    for i in range(10):
        Image.fromarray(np.full((96, 128, 3), 9 * i, np.uint8)).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 96, "width": 128})
        for box in ([10, 10, 20, 22], [60, 30, 30, 28], [90, 60, 50 if i == 0 else 24, 20]):
            annotations.append({"id": len(annotations), "image_id": i, "category_id": 1, "bbox": box, "iscrowd": 0})
            annotations[-1]["area"] = box[2] * box[3]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "a.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Returns a function of a line of `kfpn train`: the configuration with which training would begin, when all is opened and written."""
    import kfpn.training.train

    monkeypatch.chdir(tmp_path)
    setups = []
    monkeypatch.setattr(kfpn.training.train, "_train_opened", setups.append)

    def train(*args):
        setups.clear()
        assert cli.main(["train", *map(str, args)]) == 0
        return setups[0].config

    return train


def begun(workdir, config):
    """Writes what a run that has begun keeps."""
    run = Workdir(workdir)
    run.checkpoints.mkdir(parents=True)
    run.config.write_text(json.dumps(to_dict(config)))
    (run.checkpoints / "step_00000001.npz").touch()
    return run


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (None, None, False), (None, "photos", True), (None, "coco:a.json", True), (None, "shapes", False),
        (None, "shapes,train[:9]", False), ("auto", None, True), ("auto", "shapes", True), ("shapes", "photos", False),
        ("finetune", "photos", False),
    ],
)  # fmt: skip
def test_auto_is_taken_with_data_that_are_not_shapes_or_by_its_name(name, data, expected):
    assert is_automatic(name, data) == expected


def test_every_choice_is_said_once_and_written_and_warnings_are_said_once(opened, photos, capsys):
    config = opened("--data", photos)
    seen = capsys.readouterr()
    lines = [line for line in seen.out.splitlines() if line.startswith("auto: ")]
    assert [line.split(": ")[1] for line in lines] == [
        "network", "learning rate", "input size", "batch", "norm", "weights", "anchors", "pooling", "steps", "evaluations", "schedule", "precision",
    ]  # fmt: skip
    assert seen.err.count("read as COCO JSON") == seen.err.count("has no validation split") == 1
    assert seen.err.count("clipped") == 1
    assert (config.preset, config.model.backbone, config.model.num_classes) == ("auto", "resnet18", 1)
    assert (config.input.short_side, config.input.long_side) == (96, 128)
    assert config.model.anchor_sizes[0] < 32
    assert Workdir("runs/photos").read_config() == config
    for option in ("--batch-size 4", "--input.short-side 96 --input.long-side 128", f"--steps {config.steps}"):
        assert sum(option in line for line in lines) == 1


def test_init_none_asks_for_random_weights(opened, photos):
    assert opened("--data", photos).init == "kfpn:small"
    assert opened("--data", photos, "--init", "None", "--workdir", "other").init is None
    assert opened("--data", photos, "--init", "None", "--preset", "shapes", "--workdir", "third").init is None


def test_python_chooses_what_the_command_line_chooses_and_says_nothing(opened, photos, capsys, caplog):
    named = opened("--data", photos)
    caplog.clear()
    config = kfpn.auto_config(str(photos))
    assert caplog.text == ""
    assert dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=1)) == named
    given = kfpn.auto_config(str(photos), given={"steps": 7, "input.short_side": 64, "workdir": "there"})
    assert (given.steps, given.input.short_side, given.input.long_side, given.workdir) == (7, 64, 96, "there")
    source = kfpn.open_source(str(photos))
    assert kfpn.auto_config(source, given={"workdir": "there"}).input == config.input


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stepz": 3}, "got 'stepz'"),
        ({"input.short": 3}, "got 'input.short'; known are short_side"),
        ({"input": 3}, "got 'input': write a section's as 'input.short_side'"),
        ({"steps.many": 3}, "got 'steps'"),
    ],
)
def test_an_unknown_option_is_named_in_python(photos, given, words):
    with pytest.raises(ValueError, match=r"given must name options of kfpn train") as error:
        kfpn.auto_config(str(photos), given=given)
    assert words in str(error.value)


def test_an_option_by_hand_wins_also_where_it_is_a_default_and_the_others_go_with_it(opened, photos, capsys):
    base = Config()
    config = opened(
        "--data", photos, "--input.short-side", "64", "--optimizer.learning-rate", str(base.optimizer.learning_rate),
        "--model.no-norm-heads", "--batch-size=2", "--model.no-p6", "--steps", "5",
    )  # fmt: skip
    assert (config.input.short_side, config.input.long_side, config.batch_size, config.steps) == (64, 96, 2, 5)
    assert config.optimizer.learning_rate == base.optimizer.learning_rate
    assert not config.model.norm_heads
    assert len(config.model.anchor_sizes) == 4
    out = capsys.readouterr().out
    assert "--batch-size" not in out
    assert "--optimizer.learning-rate" not in out


@pytest.mark.parametrize(
    "options",
    [
        ("--input.long-side", "90"), ("--input.short-side", "900"), ("--input.train-short-sides", "64", "96"),
        ("--pyramid", "c4"), ("--model.pyramid", "finest", "--model.anchor-sizes", "16", "32"), ("--model.backbone-width", "8"),
        ("--batch-size", "1"), ("--model.norm", "gn"), ("--val-share", ".3"), ("--seed", "7", "--strategy", "one_device"),
    ],
)  # fmt: skip
def test_single_options_go_with_the_choice(opened, photos, options):
    config = opened("--data", photos, *options)
    given = given_options(options, config)
    assert given
    assert config.preset == "auto"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--steps 0", "steps must be an integer of at least 1, got 0"),
        ("--model.norm gn --model.backbone-width 8", "model.backbone_width must be a multiple of 32"),
        ("--input.short-side 64 --input.long-side 32", "input.long_side must be an integer not below input.short_side"),
    ],
)
def test_an_option_that_does_not_fit_is_an_error_before_the_data_are_opened(options, words, capsys, tmp_path):
    line = ["train", "--data", str(tmp_path / "none.csv"), "--workdir", str(tmp_path / "run"), *options.split()]
    assert cli.main(line) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_bad_data_are_told_as_before_and_leave_no_folder(capsys, tmp_path):
    assert cli.main(["train", "--data", f"coco:{tmp_path}/none.json", "--workdir", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("kfpn: error: ")
    assert "none.json does not exist" in err
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------ runs that exist


@pytest.mark.parametrize("name", ["shapes", "finetune", "coco"])
def test_a_run_of_another_preset_goes_on_with_what_its_config_says(photos, tmp_path, name):
    """A run of a version whose default was the preset shapes, and one that was begun with a preset's name."""
    old = dataclasses.replace(preset(name), data=str(photos), workdir=str(tmp_path / "run"), steps=77, seed=5)
    begun(tmp_path / "run", old)
    command = command_line._parse(["train", "--data", str(photos), "--workdir", str(tmp_path / "run")])
    assert command == old


def test_the_same_command_is_not_looked_at_again(opened, photos, capsys, monkeypatch):
    first = opened("--data", photos, "--input.short-side", "64")
    (Workdir("runs/photos").checkpoints).mkdir()
    (Workdir("runs/photos").checkpoints / "step_00000001.npz").touch()
    capsys.readouterr()
    monkeypatch.setattr(
        "kfpn.training.automatic.count_facts", lambda source: pytest.fail("the data were counted again")
    )
    for more in ((), ("--input.short-side", "64"), ("--log-every", "3")):
        again = opened("--data", photos, *more)
        assert dataclasses.replace(again, log_every=first.log_every) == first
        assert "auto: " not in capsys.readouterr().out


def test_a_run_that_exists_refuses_other_data_other_weights_and_other_settings(opened, photos, capsys, tmp_path):
    opened("--data", photos, "--workdir", "run")
    Workdir("run").checkpoints.mkdir()
    (Workdir("run").checkpoints / "step_00000001.npz").touch()
    for more, words in (
        (("--steps", "9"), "steps: 3000 -> 9"),
        (("--init", str(tmp_path / "gone.pth")), "init: 'kfpn:small' -> "),
        (("--init", "None"), "init: 'kfpn:small' -> None"),
        (("--preset", "shapes"), "model.anchor_sizes: "),
    ):
        assert cli.main(["train", "--data", str(photos), "--workdir", "run", *more]) == 2
        assert words in capsys.readouterr().err


def test_a_folder_without_weights_or_checkpoints_is_chosen_for_anew(photos, tmp_path):
    run = begun(tmp_path / "run", preset("shapes"))
    (run.checkpoints / "step_00000001.npz").unlink()
    assert isinstance(command_line._parse(["train", "--data", str(photos), "--workdir", str(run.path)]), AutoTraining)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "goes on with --val-share 0.4 --minutes 15 --seed 7 --mask, as run/config.json says\n"),
        (("--mask", "--minutes", "15"), "goes on with --val-share 0.4 --seed 7, as run/config.json says\n"),
        (("--model.mask", "--minutes=15", "--val-share", ".4", "--seed", "7"), ""),
    ],
)
def test_options_that_a_line_no_longer_gives_are_said(photos, tmp_path, monkeypatch, capsys, more, said):
    monkeypatch.chdir(tmp_path)
    chosen = kfpn.auto_config(str(photos), given={"val_share": 0.4, "minutes": 15.0, "seed": 7, "workdir": "run"})
    begun("run", dataclasses.replace(chosen, model=dataclasses.replace(chosen.model, mask=True)))
    capsys.readouterr()
    command = command_line._parse(["train", "--data", str(photos), "--workdir", "run", *more])
    assert capsys.readouterr().out == said
    assert (command.model.mask, command.minutes, command.val_share, command.seed) == (True, 15.0, 0.4, 7)


def test_of_settings_that_came_with_weights_masks_alone_were_given():
    brought = dataclasses.replace(preset("coco"), preset="auto", init="a.pth", seed=3, steps=5)
    brought = dataclasses.replace(brought, model=dataclasses.replace(brought.model, mask=True, padding="foreign"))
    kept = kept_options(brought, ())
    assert "--mask" in kept
    assert "--seed 3" in kept
    assert not any(word.startswith(("--model", "--sampling", "--input")) for word in kept)
    assert kept_options(dataclasses.replace(brought, preset="coco"), ()) == []


@pytest.mark.parametrize("preset_words", [(), ("--preset", "shapes"), ("--preset", "coco")])
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            "--sampling.mask-batch 8",
            "sampling.mask_batch must be given with --mask, got --sampling.mask-batch 8 without",
        ),
        ("--sampling.mask-targets=soft", "sampling.mask_targets must be given with --mask"),
        ("--model.mask-classes agnostic", "model.mask_classes must be given with --mask"),
        ("--model.mask-channels 32", "model.mask_channels must be given with --mask"),
        ("--model.pasting resized", "model.pasting must be given with --mask"),
    ],
)
def test_an_option_about_masks_without_masks_is_refused(tmp_path, capsys, preset_words, words, named):
    line = ["train", "--data", str(tmp_path / "none.csv"), "--workdir", str(tmp_path / "run"), *preset_words]
    assert cli.main([*line, *words.split()]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "add --mask" in error
    assert not (tmp_path / "run").exists()
    command = command_line._parse([*line, *words.split(), "--mask"])
    assert getattr(command, "config", command).model.mask


def test_a_run_with_masks_takes_options_about_masks_without_the_word_and_old_settings_load(photos, tmp_path):
    old = dataclasses.replace(preset("shapes"), preset="auto", data=str(photos), workdir=str(tmp_path / "run"))
    with_masks = dataclasses.replace(old, model=dataclasses.replace(old.model, mask=True))
    run = begun(tmp_path / "run", with_masks)
    line = ["train", "--data", str(photos), "--workdir", str(tmp_path / "run")]
    assert command_line._parse([*line, "--sampling.mask-batch", "4"]).sampling.mask_batch == 4
    # Without masks a run may have such settings too, as the preset coco has.
    without = dataclasses.replace(old, sampling=preset("coco").sampling)
    run.config.write_text(json.dumps(to_dict(without)))
    assert command_line._parse(line) == without


def test_in_python_an_option_about_masks_needs_masks_too(photos):
    with pytest.raises(ValueError, match=r"sampling\.mask_batch must be given with --mask"):
        kfpn.auto_config(str(photos), given={"sampling.mask_batch": 4})
    assert kfpn.auto_config(str(photos), given={"sampling.mask_batch": 4, "model.mask": True}).sampling.mask_batch == 4


# ------------------------------------------------------------------------------------------------ weights, words


def test_weights_keep_their_network(opened, photos, tmp_path, monkeypatch):
    trained = dataclasses.replace(preset("shapes").model, num_classes=3, anchor_sizes=(8.0, 16.0, 32.0, 64.0, 128.0))
    begun(tmp_path / "weights", dataclasses.replace(preset("shapes"), model=trained))
    monkeypatch.setattr("kfpn.training.train.read_trained_weights", lambda init, task: None)
    config = opened("--data", photos, "--init", tmp_path / "weights", "--model.score-threshold", ".2")
    assert config.model == dataclasses.replace(trained, num_classes=1, score_threshold=0.2)
    assert (config.input, config.sampling) == (preset("shapes").input, preset("shapes").sampling)
    assert config.optimizer.learning_rate == preset("finetune").optimizer.learning_rate
    assert (config.preset, config.init) == ("auto", str(tmp_path / "weights"))


def test_words_are_the_fields_that_they_set():
    config = Config()
    words = "--steps 3 --model.no-p6 --pyramid c4 --input.short_side=64 --no-jit-compile --optimizer.name sgd --model.norm gn"
    assert sorted(given_options(words.split(), config)) == sorted(
        ["steps", "model.p6", "model.pyramid", "input.short_side", "jit_compile", "optimizer.name", "model.norm"]
    )
    assert given_options(["--unknown", "--name"], config) == {"optimizer.name": "sgd"}


def test_help_needs_no_data_and_says_what_auto_does(capsys):
    for line in (["train", "--help"], ["train", "--data", "nowhere", "--help"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(line)
        assert stop.value.code == 0
        words = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "auto: chosen from the data, the machine and the weights" in words


def test_the_preset_auto_is_no_fixed_one():
    with pytest.raises(ValueError, match=r"use kfpn\.auto_config\(data\)"):
        preset("auto")
