"""Checks the committed notebooks, and executes each with its small values."""

import copy
import importlib.util

import pytest

from docs.site.notebook_pages import shown_notebook
from docs.site.pages import ROOT, anchors_of, is_address, links_of
from notebooks import execute
from notebooks.faults import LARGEST_FILE, faults_of
from notebooks.notebook_files import (
    code_cells,
    code_digest,
    notebook_paths,
    read_notebook,
    tidied,
    with_small_values,
    written,
)

PATHS = notebook_paths()
NAMES = [path.stem for path in PATHS]


@pytest.fixture
def needs_kernel():
    for package in ("nbclient", "nbformat", "ipykernel"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'needs {package}: pip install -e ".[notebooks]"')


def made(*sources, tags=()):
    """Returns a notebook of cells with a text before each, as it is before its execution."""
    cells = []
    for number, source in enumerate(sources):
        cells.append({"cell_type": "markdown", "id": f"t{number}", "metadata": {}, "source": f"Text {number}."})
        cells.append({"cell_type": "code", "id": f"c{number}", "metadata": {"tags": list(tags)}, "source": source,
                      "execution_count": None, "outputs": []})  # fmt: skip
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def ran(*outputs_of_cells):
    """Returns a notebook as it is after its execution, with these outputs."""
    notebook = made(*(f"cell_{number}()" for number in range(len(outputs_of_cells))))
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), outputs_of_cells, strict=True), start=1):
        cell.update(execution_count=number, outputs=list(outputs))
    return tidied(notebook)


def said(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def test_there_are_notebooks_and_the_site_and_its_page_name_each():
    assert {"own_data", "pyramid"} <= set(NAMES)
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"notebooks/{name}.md" not in navigation] == []
    assert [name for name in NAMES if f"(../notebooks/{name}.ipynb)" not in page] == []


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_committed_notebook_has_run_as_it_stands_and_shows_nothing_that_it_must_not(path):
    notebook = read_notebook(path)
    assert faults_of(notebook, path.name) == []
    assert written(notebook) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_links_of_a_notebook_lead_to_files_and_headings(path):
    texts = [cell["source"] for cell in read_notebook(path)["cells"] if cell["cell_type"] == "markdown"]
    broken = []
    for target in {target for text in texts for _, target in links_of(text) if not is_address(target)}:
        place, _, anchor = target.partition("#")
        linked = (path.parent / place).resolve()
        if not linked.is_file() or (anchor and anchor not in anchors_of(linked.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_runs_with_its_small_values(path, tmp_path, needs_kernel):
    folder, output = tmp_path / "work", tmp_path / path.name
    folder.mkdir()
    done = execute.executed(with_small_values(read_notebook(path), path.name), path.name, folder)
    output.write_text(written(done), encoding="utf-8")
    assert faults_of(read_notebook(output), path.name) == []


def test_a_broken_cell_is_named_and_the_old_file_stays(tmp_path, monkeypatch, capsys, needs_kernel):
    path = tmp_path / "broken.ipynb"
    before = written(made("print(1)", "print(2)\nunknown + 1", "print(3)"))
    path.write_text(before)
    monkeypatch.setattr(execute, "notebook_paths", lambda names: [path])
    assert execute.main(["--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "execute.py: error: broken.ipynb, code cell 2 ('print(2)'): must run, got NameError: name 'unknown' is not defined\n"
    )
    assert path.read_text() == before


def test_small_values_are_set_behind_the_parameters():
    notebook = made("a = 1\nb = 2", tags=["parameters", "silent"])
    notebook["metadata"] = {"kfpn": {"small": {"a": 3}}}
    small = with_small_values(notebook, "n.ipynb")
    assert [cell["source"] for cell in code_cells(small)] == ["a = 1\nb = 2", "a = 3"]
    assert len(code_cells(notebook)) == 1
    notebook["metadata"]["kfpn"]["small"]["c"] = 4
    with pytest.raises(ValueError, match=r"n\.ipynb: small values must be of a, b, got c"):
        with_small_values(notebook, "n.ipynb")
    with pytest.raises(ValueError, match="must have one cell with the tag 'parameters'"):
        with_small_values(made("a = 1"), "n.ipynb")


PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    ("outputs", "fault"),
    [
        ([said("12 images/s, 3/4\n")], None),
        ([], "must have an output, or the tag 'silent'"),
        ([said("kept in /home/me/runs\n")], "must not show a path of this machine, got 'kept in /home/me/runs'"),
        ([said("2030-01-01 WARNING: odd\n")], "must not show a warning"),
        ([said("odd\n", "stderr")], "must write nothing to stderr, got 'odd'"),
        ([said("<object at 0x7f0123456789>\n")], "an address in memory"),
        ([said("line\n" * 100)], "must print at most"),
        (
            [{"output_type": "error", "ename": "E", "evalue": "no", "traceback": []}],
            "must not fail, got E: no",
        ),
        (
            [{"output_type": "display_data", "data": {"image/png": PICTURE}, "metadata": {}}],
            "a picture must show something",
        ),
        ([said("1\n" + "x" * LARGEST_FILE + "\n")], "must have at most 1,500,000 bytes"),
    ],
)
def test_an_output_that_must_not_be_published_is_noticed(outputs, fault):
    faults = faults_of(ran([said("right\n")], outputs), "n.ipynb")
    assert (faults == []) if fault is None else any(fault in one for one in faults), faults


def test_code_that_was_changed_after_its_run_and_a_cell_without_text_are_noticed():
    notebook = ran([said("1\n")], [said("2\n")])
    assert faults_of(notebook, "n.ipynb") == []
    changed = copy.deepcopy(notebook)
    code_cells(changed)[0]["source"] += " "
    assert "its code was changed" in faults_of(changed, "n.ipynb")[0]
    assert code_digest(changed) != code_digest(notebook)
    code_cells(notebook)[1]["execution_count"] = 7
    del notebook["cells"][2]
    assert ["must stand before" in fault or "must have run as" in fault for fault in faults_of(notebook, "n")] == [
        True
    ] * 2


def test_a_bar_that_writes_over_its_line_leaves_its_last_state():
    notebook = ran([said(" 1%\r 50%"), said("\r100%\r\nready\n")])
    assert [output["text"] for output in code_cells(notebook)[0]["outputs"]] == ["100%\nready\n"]


def test_the_page_of_a_notebook_shows_its_texts_code_outputs_and_pictures(tmp_path):
    notebook = ran(
        [said("``` in it\n")], [{"output_type": "display_data", "data": {"image/png": PICTURE}, "metadata": {}}]
    )
    (tmp_path / "n.ipynb").write_text(written(notebook))
    page, files = shown_notebook(tmp_path / "n.ipynb")
    assert page.startswith("Text 0.\n")
    assert "```python\ncell_0()\n```\n\n````text\n``` in it\n````" in page
    assert "](n/3_0.png)" in page
    assert sorted(files) == ["notebooks/n.ipynb", "notebooks/n/3_0.png"]
