"""Tests the benchmark of the paper's tables: what its rows have in common, and how it writes down what was measured."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from ablation import CONFIG, PAPER, PRECISIONS, RECALLS, ROWS, TITLES, figures_of, run_config, tables, write_document


def test_the_rows_differ_only_in_the_pyramid():
    configs = [run_config(row, 1, 10, Path("out")) for row in ROWS]
    assert [config.model.pyramid for config in configs] == list(ROWS)
    same = {
        dataclasses.replace(config, workdir="one", model=dataclasses.replace(config.model, pyramid="fpn"))
        for config in configs
    }
    assert len(same) == 1
    assert len({config.workdir for config in configs}) == len(ROWS)
    assert same.pop().model == CONFIG.model


def test_every_row_has_the_papers_ten_figures():
    assert set(PAPER) == set(ROWS)
    assert {len(values) for values in PAPER.values()} == {len(TITLES)}
    # Table 1: FPN's AR1k is 8.0 points above conv4's.
    assert PAPER["fpn"][1] - PAPER["c4"][1] == pytest.approx(8.0)


def test_tables_show_mean_and_spread_of_the_seeds(tmp_path):
    for seed, value in enumerate((0.1, 0.2, 0.3)):
        for row, more in (("fpn", 0.1), ("c4", 0.0)):
            final = dict.fromkeys(PRECISIONS, value + more)
            final["proposals"] = dict.fromkeys(RECALLS, value) | {"ARl@1000": None}
            (tmp_path / f"{row}_{seed}").mkdir()
            (tmp_path / f"{row}_{seed}" / "final.json").write_text(json.dumps(final))
    figures = figures_of(["c4", "fpn"], [0, 1, 2], tmp_path)
    assert np.isnan(figures["fpn"][:, TITLES.index("ARl")]).all()
    measured = {row: {"anchors": 42, "weights": 1.5, "ms": 12.4} for row in ("c4", "fpn")}
    lines = tables(figures, measured).splitlines()
    # (10 + 20 + 30) / 3 and sqrt(((10 - 20)^2 + 0 + (30 - 20)^2) / 2).
    cells = [cell.strip() for cell in lines[2].split("|")]
    assert cells[1:5] == ["(a) conv4 alone", "42", "1.50 M", "**20.0** ± 10.0"]
    assert cells[-3:-1] == ["20.0 ± 10.0", "12"]
    assert [cell.strip() for cell in lines[4].split("|")][-3] == "**30.0** ± 10.0"
    assert cells[8] == "-"
    assert "*56.3*" in lines[5]


def test_a_document_keeps_the_text_around_the_tables(tmp_path):
    document = tmp_path / "ablation.md"
    document.write_text("before\n<!-- tables -->\nold\n<!-- /tables -->\nafter\n")
    write_document(document, "new")
    assert document.read_text() == "before\n<!-- tables -->\n\nnew\n\n<!-- /tables -->\nafter\n"
    document.write_text("no markers")
    with pytest.raises(ValueError, match="must hold <!-- tables -->"):
        write_document(document, "new")
    assert document.read_text() == "no markers"
