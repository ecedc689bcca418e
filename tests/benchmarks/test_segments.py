"""Tests the benchmark of table 6: what its rows have in common, that none runs twice, and how it writes down what was measured."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import segments
from segments import RECALLS, ROWS, scales_of, table

from kfpn.cli import command_line as cli
from kfpn.runs.workdir import Workdir


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Runs the program with trainings that end at once: returns a function of its arguments, and the lines that were run."""
    lines = []

    def call(words, log):
        words = list(words)
        lines.append(words)
        workdir = Path(words[words.index("--workdir") + 1])
        if words[2] == "train":
            config = cli._parse(words[2:])
            workdir.mkdir(parents=True)
            Workdir(workdir).config.write_text(json.dumps(dataclasses.asdict(config)))
            (workdir / "final.json").write_text(json.dumps({"steps": 7} | dict.fromkeys(RECALLS, 0.5)))
        else:
            Path(words[words.index("--json") + 1]).write_text(json.dumps(dict.fromkeys(RECALLS, 0.25)))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["segments.py", "--output", str(tmp_path), *words])
        segments.main()

    monkeypatch.setattr(segments, "call", call)
    monkeypatch.setattr(segments, "add_times", lambda rows: [row.update(ms=12.3) for row in rows])
    return run, lines


def test_rows_differ_only_in_what_table_6_compares(trained, tmp_path):
    run, lines = trained
    run("--minutes", "3", "--options", "--batch-size", "2")
    assert len(lines) == len(ROWS) + 1  # the single level is evaluated in several sizes
    configs = {name: Workdir(tmp_path / f"{name}-{6 if name == 'twice' else 3}min").read_config() for name in ROWS}
    assert {name: config.minutes for name, config in configs.items()} == {
        name: 6.0 if name == "twice" else 3.0 for name in ROWS
    }
    assert {config.model.segment_windows for config in configs.values()} == {"5x5", "7x7", "both"}
    assert [name for name in ROWS if configs[name].model.segment_side == 28] == ["both28", "twice"]
    assert (configs["single"].model.levels, configs["single"].model.anchor_sizes) == (("C4",), (40.0,))
    same = {
        dataclasses.replace(
            configs[name],
            workdir="one",
            minutes=1.0,
            model=dataclasses.replace(configs[name].model, segment_windows="both", segment_side=14),
        )
        for name in ROWS
        if name != "single"
    }
    assert len(same) == 1
    assert same.pop().batch_size == 2
    assert scales_of("single", tmp_path / "single-3min") == [64, 91, 128, 181, 256]


def test_a_row_that_was_measured_is_not_run_again(trained, capsys):
    run, lines = trained
    run("--steps", "3", "--rows", "both", "single")
    assert len(lines) == 3
    said = capsys.readouterr().out
    run("--steps", "3", "--rows", "single", "both")
    assert len(lines) == 3
    assert capsys.readouterr().out == said
    rows = said.splitlines()[2:]
    assert rows[0] == "| one level, image pyramid | " + "0.250 | " * 6 + "7 | 12 |"
    assert rows[1] == "| *the paper's DeepMask, on COCO* | - | - | 0.371 | 0.158 | 0.501 | 0.549 | - | 490 |"
    assert rows[2] == "| 5x5 and 7x7 | " + "0.500 | " * 6 + "7 | 12 |"
    run("--steps", "4", "--rows", "both")
    assert len(lines) == 4


def test_sizes_without_objects_have_no_figure():
    row = {"row": "5x5", "steps": 1, "ms": 5.4} | dict.fromkeys(RECALLS, 0.1) | {"ARl@1000": None}
    assert "| 0.100 | - | 1 | 5 |" in table([row])
