"""Checks the Markdown pages: links, anchors, and that each command in them is one that kfpn takes."""

import json
import re

import pytest

import kfpn
from docs.site.error_entries import HEADER, messages_of, rows_of, with_entries
from docs.site.pages import CODE_SPAN, COMMENT, NOT_RUN, ROOT, Block, blocks_of, broken_links, pages_of
from kfpn.config.presets import preset
from kfpn.config.run import to_dict
from tests.docs.commands import SHELLS, calls_of, command_lines, fault_of, known_options

LANGUAGES = {*SHELLS, "python", "text"}
COMMAND = re.compile(r"^(\$ |kfpn (?!:)|python3? |pip |docker |curl |git |\.venv/)", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z](?:[\w-]|\.(?=\w))*(?![\w.*-])")
OF_OTHERS = ("--check", "--kill-on-bad-exit", "--cpus-per-task", "--tf_xla_persistent_cache_directory", "--rest_api_timeout_in_ms",
             "--no-deps", "--gpus", "--rest-port", "--cors-port", "--rest_api_enable_cors_support",
             "--xla_force_host_platform_device_count", "--xla_gpu_deterministic_ops", "--xla_cpu_collective_timeout_seconds",
             "--ntasks-per-node", "--gpus-per-node")  # fmt: skip
"""Options of ruff, Slurm, XLA, TensorFlow Serving, pip and Docker, and of the server in the tests, that pages name."""
WITHOUT_LANGUAGE = ("<!-- tests -->", "<!-- models.config -->")
"""Marks of blocks that other programs read as they stand."""


def blocks():
    return [
        block
        for page in pages_of()
        for block in blocks_of(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())
    ]


def test_every_link_of_every_page_leads_to_a_file_and_a_heading():
    assert broken_links() == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](docs/other.md)", None),
        ("[a](docs/other.md#some-words-kfpn-report)", None),
        ("[a](docs/other.md#some-words-kfpn-report-1)", None),
        ("[a](#top)", None),
        ("`[a](nowhere.md)` and [b](https://example.org/x#y)\n\n```text\n[a](nowhere.md)\n```", None),
        ("[a](docs/gone.md)", "README.md:3: docs/gone.md: there is no such file"),
        ("![a](docs/gone.png)", "README.md:3: docs/gone.png: there is no such file"),
        ('<img src="docs/gone.png">', "README.md:3: docs/gone.png: there is no such file"),
        ("[`a`](docs/other.md#nothing)", "README.md:3: docs/other.md#nothing: the page has no such heading"),
        ("[a](../outside.md)", "README.md:3: ../outside.md: the file is outside of the repository"),
    ],
)
def test_a_broken_link_is_noticed(tmp_path, text, fault):
    (tmp_path / "outside.md").write_text("")
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "other.md").write_text("# Some words: `kfpn report`\n\n## Some words, `kfpn report`\n")
    (root / "README.md").write_text(f"# Top\n\n{text}\n")
    assert broken_links(root) == ([fault] if fault else [])


def test_the_reference_lists_every_public_name():
    listed = (ROOT / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
    assert [name for name in kfpn.__all__ if f"`{name}`" not in listed and f"`kfpn.{name}`" not in listed] == []


def test_pages_that_the_code_names_are_there():
    named = {
        (path, name)
        for folder in ("kfpn", "benchmarks", "export", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"docs/[\w/]+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert [(path, name) for path, name in named if not (ROOT / name).is_file()] == []


def test_blocks_have_a_language_so_that_commands_are_known_as_commands():
    unknown = [block.place for block in blocks() if block.language not in LANGUAGES]
    read_by_others = [
        page
        for page in pages_of()
        for mark in WITHOUT_LANGUAGE
        if re.search(rf"^{mark}\n```\n", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(unknown) == len(read_by_others), unknown
    assert [block.place for block in blocks() if block.language == "text" and COMMAND.search(block.text)] == []
    indented = re.compile(rf"^ {{4,}}(?={COMMAND.pattern[1:]})", re.MULTILINE)
    fenced = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
    assert [page for page in pages_of() if indented.search(fenced.sub("", page.read_text(encoding="utf-8")))] == []


def test_a_reason_stands_before_a_block_and_has_words():
    for page in pages_of():
        text = page.read_text(encoding="utf-8")
        given = [
            mark[1] for line in text.splitlines() if (mark := COMMENT.match(line)) and mark[1].startswith("not run")
        ]
        reasons = [block.reason for block in blocks_of(text) if block.reason is not None]
        assert [f"{NOT_RUN} {reason}" for reason in reasons] == given, page
        assert all(len(reason.split()) > 1 for reason in reasons), page


def test_blocks_are_read_with_the_reason_before_them():
    text = "Words.\n\n<!-- not run: needs a GPU -->\n<!-- other -->\n```sh\nkfpn a\n```\n\n```python\nb\n```\nx\n~~~\n```\n~~~\n"
    assert blocks_of(text, "p.md") == [
        Block("p.md", 5, "sh", "kfpn a\n", "needs a GPU"),
        Block("p.md", 9, "python", "b\n", None),
        Block("p.md", 13, "", "```\n", None),
    ]
    assert blocks_of("<!-- not run: needs a GPU -->\nWords.\n```sh\na\n```\n")[0].reason is None
    with pytest.raises(ValueError, match=r"p\.md:1: a code block must end"):
        blocks_of("```sh\nkfpn\n", "p.md")


def test_every_call_of_kfpn_in_the_pages_is_one_that_the_command_line_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "my_folder").mkdir(parents=True)
    (tmp_path / "runs" / "my_folder" / "config.json").write_text(json.dumps(to_dict(preset("shapes"))))
    calls = {
        tuple(call): block.place
        for block in blocks()
        if block.language in SHELLS
        for line in command_lines(block)
        for call in calls_of(line)
    }
    assert len(calls) > 80
    faults = {f"{place}: kfpn {' '.join(call)}": fault_of(list(call)) for call, place in calls.items()}
    assert {call: fault for call, fault in faults.items() if fault} == {}


def test_every_option_that_a_page_names_is_one_of_kfpn_or_of_a_script():
    scripts = {
        option
        for folder in ("benchmarks", "examples")
        for path in (ROOT / folder).glob("*.py")
        for option in OPTION.findall(path.read_text(encoding="utf-8"))
    }
    known = known_options() | scripts | set(OF_OTHERS)
    assert "--input.short-side" in known
    assert "--model.no-shared-rpn" in known
    unknown = {
        f"{page.relative_to(ROOT)}: {option}"
        for page in pages_of()
        for span in CODE_SPAN.finditer(page.read_text(encoding="utf-8").replace("```", ""))
        for option in OPTION.findall(span[0])
        if option not in known
    }
    assert unknown == set()


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("kfpn train --data a   # words\n", [["train", "--data", "a"]]),
        ("X=1 kfpn data a && .venv/bin/python train.py --steps 3\n", [["data", "a"], ["train", "--steps", "3"]]),
        ('D="--data a"\nkfpn train ... \\\n  $D | head\n', [["train", "--data", "a"]]),
        ("srun --nodes=2 kfpn data a; ls kfpn\n", [["data", "a"]]),
        ("# kfpn data a\npip install kfpn\n", []),
    ],
)
def test_calls_of_kfpn_are_found_in_a_block(text, calls):
    lines = command_lines(Block("p.md", 1, "sh", text, None))
    assert [call for line in lines for call in calls_of(line)] == calls


def test_output_in_a_console_block_is_no_command():
    block = Block("p.md", 1, "console", "$ kfpn data a\nkfpn is not called here\n", None)
    assert command_lines(block) == ["kfpn data a"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["train", "--init", "R-50.pkl", "--data", "a", "--minutes", "3"], None),
        (["train", "--data", "a", "--input.short-sides", "3"], "--input.short-sides"),
        (["export", "onnx", "run", "a.onnx", "--int9"], "--int9"),
        (["predict", "--workdir", "a", "--output", "b"], "images must name at least one file"),
        (["evaluate", "--workdir", "a", "--max-detections", "0"], "max_detections must be"),
        (["evaluat"], "command must be one of"),
    ],
)
def test_a_call_that_kfpn_does_not_take_is_noticed(words, fault):
    said = fault_of(words)
    assert said is None if fault is None else fault in said


def test_every_message_of_bad_input_has_an_entry_with_a_heading():
    page = (ROOT / "docs" / "bad_input.md").read_text(encoding="utf-8")
    entries = with_entries(page)
    assert len(rows_of(page)) > 250
    assert entries.count("\n#### ") == len(rows_of(page))
    assert HEADER not in entries
    assert [message for message in messages_of(page) if message not in entries] == []


def test_an_entry_keeps_bars_and_code_of_its_row():
    page = f"Words.\n\n{HEADER}\n|---|---|\n| `a | b` \\| c | `kfpn: error: x`<br>`kfpn: error: y` … |\n\n| other |\n|---|\n| z |\n"
    assert rows_of(page) == [("`a | b` \\| c", "`kfpn: error: x`<br>`kfpn: error: y` …")]
    assert messages_of(page) == ["kfpn: error: x", "kfpn: error: y"]
    assert with_entries(page) == (
        "Words.\n\n\n#### `a | b` \\| c\n\n`kfpn: error: x`<br>\n`kfpn: error: y` …\n\n| other |\n|---|\n| z |\n"
    )
