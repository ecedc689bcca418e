"""Tests that the presets for COCO are what they say, field by field, and that `coco` says what it is not."""

import dataclasses
import re
import warnings
from pathlib import Path

import pytest

from kfpn.config import preset_names
from kfpn.config.old_preset import coco_warning, warn_of_coco
from kfpn.config.presets import PRESETS, preset
from kfpn.config.run import Config, to_dict
from tests.config.preset_sources import NOT_THERE, STAGES, TABLES

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ("model", "input", "sampling", "optimizer")


def fields_of(config):
    """Returns the fields of a recipe by their options' names."""
    flat = {name: getattr(config, name) for name in ("steps", "batch_size")}
    for section in RECIPE:
        flat |= {f"{section}.{name}": value for name, value in vars(getattr(config, section)).items()}
    del flat["model.num_classes"]
    return flat


def number(value):
    """Returns what can be compared: a value of another library in kfpn's types, where it is a number or numbers."""
    if isinstance(value, (list, tuple)):
        return tuple(number(part[0] if isinstance(part, (list, tuple)) and len(part) == 1 else part) for part in value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


@pytest.mark.parametrize("name", list(TABLES))
def test_each_field_of_a_preset_has_the_value_of_its_source(name):
    rows = {row.field: row.ours for row in TABLES[name]}
    assert len(rows) == len(TABLES[name])
    assert fields_of(preset(name)) == rows


@pytest.mark.parametrize("name", list(TABLES))
def test_each_row_names_a_file_and_a_commit_a_section_or_a_reason(name):
    places = (
        r"^[\w-]+/\w+ [\w./-]+ @[0-9a-f]{40}$",
        r", section \d",
        r", table \d",
        "^a choice",
        f"^{re.escape(STAGES)}$",
        f"^{NOT_THERE}$",
    )
    for row in TABLES[name]:
        assert any(re.search(place, row.source) for place in places), row
        assert row.key or row.theirs is None, row


@pytest.mark.parametrize("name", list(TABLES))
def test_a_value_that_is_written_as_kfpn_writes_it_is_the_others_value(name):
    """Fields whose units differ (`milestones`, means in BGR or shares of 255, words) are compared by hand in the tests below."""
    compared = 0
    for row in TABLES[name]:
        ours, theirs = number(row.ours), number(row.theirs)
        if isinstance(ours, float) and isinstance(theirs, float) and row.field != "steps":  # torchvision counts epochs
            assert ours == pytest.approx(theirs), row
            compared += 1
    assert compared > 25


def test_detectron2s_schedules_drop_at_its_own_steps():
    for name, steps, drops in (
        ("detectron2_1x", 90_000, [60_000, 80_000]),
        ("detectron2_3x", 270_000, [210_000, 250_000]),
    ):
        config = preset(name)
        assert config.steps == steps
        assert [round(share * steps) for share in config.optimizer.milestones] == drops
    one, three = preset("detectron2_1x"), preset("detectron2_3x")
    changed = {"workdir": one.workdir, "preset": one.preset, "steps": one.steps, "optimizer": one.optimizer}
    assert dataclasses.replace(three, **changed) == one
    assert one.model.pixel_mean[::-1] == (103.53, 116.28, 123.675)


def test_torchvisions_schedule_is_26_epochs_of_the_images_with_a_box():
    epoch = -(-117_266 // 8) // 2  # a GPU's images, two a step
    config = preset("torchvision")
    assert epoch == config.eval_every == 7329
    assert config.steps == 26 * epoch == 190_554
    assert [round(share * config.steps) for share in config.optimizer.milestones] == [16 * epoch, 22 * epoch]
    assert config.model.pixel_mean == pytest.approx([255 * mean for mean in (0.485, 0.456, 0.406)])
    assert config.model.pixel_std == pytest.approx([255 * deviation for deviation in (0.229, 0.224, 0.225)])


def test_the_papers_schedule_is_60k_steps_and_20k_of_a_tenth_of_the_rate():
    config = preset("paper")
    assert [round(share * config.steps) for share in config.optimizer.milestones] == [60_000]
    assert config.optimizer.learning_rate * config.optimizer.decay_factor == pytest.approx(0.002)


def test_the_presets_agree_with_the_settings_that_come_with_the_libraries_detectors():
    from kfpn.weights.makers import detectron2, torchvision

    for name, maker in (("detectron2_1x", detectron2), ("torchvision", torchvision)):
        config = preset(name)
        for section, settings in (
            (config.model, {**maker.BACKBONE, **maker.DETECTOR}),
            (config.sampling, maker.SAMPLING),
        ):
            assert {key: getattr(section, key) for key in settings} == settings


# ------------------------------------------------------------------------------------------------ names and help


def test_every_preset_has_a_meaning_and_every_meaning_a_preset():
    assert set(preset_names.PRESET_MEANINGS) == {*PRESETS, "auto"}  # auto has no settings of its own


@pytest.mark.parametrize("name", list(preset_names.PRESET_MEANINGS))
def test_the_help_says_of_every_preset_what_it_is(name, capsys):
    from kfpn import cli

    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert f"{name}: {preset_names.PRESET_MEANINGS[name]}." in words


@pytest.mark.parametrize("name", list(preset_names.PRESET_MEANINGS))
def test_the_docs_have_a_recipe_for_every_preset(name):
    text = (ROOT / "docs" / "presets.md").read_text()
    assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE)
    if name in ("auto", "shapes", "finetune"):  # these are taken without --preset
        return
    assert re.search(rf"^kfpn train --preset {name} +--init \S+ \$DATA", text, re.MULTILINE)
    assert "--data coco:" in text.split('DATA="')[1].split('"')[0]
    assert "--val-data coco:" in text.split('DATA="')[1].split('"')[0]


def test_the_line_of_the_paper_in_readme_and_help_has_weights_and_validation_data():
    from kfpn.cli.help_texts import HELP

    for text in ((ROOT / "README.md").read_text(), HELP["train"].replace("\\\n", "")):
        (line,) = [line for line in text.splitlines() if re.search(r"kfpn train --preset (paper|detectron2_1x) ", line)]
        assert "--init R-50.pkl" in line
        assert "--val-data coco:" in line


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_keeps_its_runs_in_a_folder_of_its_own(name):
    assert preset(name).workdir == f"runs/{name}"


# ------------------------------------------------------------------------------------------------ coco


def test_coco_keeps_its_values():
    old = preset("coco")
    assert old == Config()
    assert (old.input.train_short_sides, old.input.keep_empty, old.optimizer.decay_biases) == ((), True, False)
    assert (old.model.post_nms_train, old.model.sampling_ratio, old.sampling.roi_box_beta) == (2000, 2, 1.0)


def test_the_warning_of_coco_names_each_field_that_differs_with_both_values():
    words = coco_warning(preset("coco"))
    for name in ("detectron2_1x", "paper"):
        part = words.split(f"not {name}, which differs in ")[1].split(";")[0].split(". It keeps")[0]
        mine, others = fields_of(preset("coco")), fields_of(preset(name))
        differing = {field for field in mine if mine[field] != others[field]}
        assert set(re.findall(r"(?:^|, )((?:[a-z]+\.)?\w+) [^,]*\(there ", part)) == differing
    assert "sampling.rpn_box_beta 0.1111 (there 0)" in words
    assert "input.train_short_sides none (there 640 672 704 736 768 800)" in words
    assert "\n" not in words


def test_the_warning_does_not_name_what_the_run_has_set_itself():
    config = preset("coco")
    config = dataclasses.replace(config, sampling=preset("detectron2_1x").sampling, steps=7)
    words = coco_warning(config)
    assert "sampling." not in words
    assert "steps 90000" not in words
    assert "input.keep_empty" in words
    whole = {name: getattr(preset("detectron2_1x"), name) for name in ("steps", "batch_size", *RECIPE)}
    assert "detectron2_1x, which" not in (coco_warning(dataclasses.replace(config, **whole)) or "")


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "coco"])
def test_no_other_preset_is_warned_of(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_coco(preset(name))


def test_a_configuration_of_an_older_version_has_the_values_that_it_had():
    old = to_dict(Config())
    for section, name in (("input", "train_short_sides"), ("input", "keep_empty"), ("optimizer", "decay_biases")):
        del old[section][name]
    from kfpn.config.run import from_dict
    from kfpn.runs.other_options import compare_configs

    assert from_dict(Config, old) == Config()
    assert compare_configs(to_dict(from_dict(Config, old)), to_dict(preset("coco"))) == []
