"""Finds the calls of `kfpn` in the code blocks of pages, and gives them to the parser of the command line."""

import contextlib
import dataclasses
import io
import re
import shlex

from docs.site.pages import Block
from kfpn.cli import command_line
from kfpn.cli.demo_command import Demo
from kfpn.cli.exports import EXPORTS
from kfpn.cli.found_init import option_value
from kfpn.cli.options import Benchmark, Evaluate, ImportWeights, LookAtData, Predict, Propose, ReplayNan, Visualize
from kfpn.cli.report_command import Report
from kfpn.config.model import ModelConfig
from kfpn.config.run import Config

SHELLS = ("sh", "bash", "console", "yaml")
"""Languages of blocks that hold commands: in console behind `$ `, in yaml behind exec."""
SCRIPTS = {"train.py": ["train"], "export/to_saved_model.py": ["export", "saved_model"],
           "export/to_onnx.py": ["export", "onnx"], "export/to_tf_trt.py": ["export", "tf_trt"]}  # fmt: skip
"""Scripts that stand for a command of kfpn."""
BEFORE = re.compile(r"[A-Z_]+=.*|exec|srun|--[\w-]+=\S+|\S*python3?")
"""Words that may stand before kfpn or a script."""
COMMANDS = (Benchmark, Demo, Evaluate, ImportWeights, LookAtData, Predict, Propose, ReplayNan, Report, Visualize)
END = ("&&", "||", "|", ";")


def command_lines(block: Block) -> list[str]:
    """Returns the lines of a block that are commands, continued ones joined and variables that the block sets filled in."""
    lines = re.sub(r"[ \t]*\\\n[ \t]*", " ", block.text).splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    if block.language == "yaml":
        lines = [line.strip() for line in lines if line.strip().startswith("exec ")]
    values = dict(match.groups() for line in lines if (match := re.fullmatch(r'(\w+)="([^"]*)"', line)))
    filled = [re.sub(r"\$(\w+)", lambda name: values.get(name[1], name[0]), line) for line in lines]
    return [line for line in filled if line.strip() and not line.startswith("#")]


def calls_of(line: str) -> list[list[str]]:
    """Returns the words behind `kfpn` of each call of it in a line, without `...`, which stands for options that are left out."""
    calls, part = [], []
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    for word in [*words, ";"]:
        if word not in END:
            part.append(word)
            continue
        while part and BEFORE.fullmatch(part[0]):
            part.pop(0)
        if part and (part[0] == "kfpn" or part[0] in SCRIPTS):
            calls.append([*SCRIPTS.get(part[0], []), *(word for word in part[1:] if word != "...")])
        part = []
    return calls


def fault_of(words: list[str]) -> str | None:
    """Returns what the parser of the command line says against the words of a call; None: it takes them.

    Weights to start from need not be there: only the words are parsed.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            export = next((row for row in EXPORTS if words[:2] == ["export", row.name]), None)
            if export is not None:
                command_line._parse_export(export, words)
            else:
                start = command_line.train_defaults(_without_init(words))
                command_line._parse_once(words, ModelConfig(), start)
    except SystemExit as stop:
        if stop.code != 0:  # --help ends with 0
            return " ".join(said.getvalue().split()) or f"exit code {stop.code}"
    except ValueError as error:
        return str(error)
    return None


def _without_init(words: list[str]) -> list[str]:
    """Returns the words without the weights to start from, which the defaults of `kfpn train` would be read from."""
    if words[:1] != ["train"] or option_value(words, "init") is None:
        return words
    place = words.index("--init")
    return words[:place] + words[place + 2 :]


def known_options() -> set[str]:
    """Returns the options of all commands of kfpn, as they are written: `--input.short-side`, `--no-report`."""
    classes = [Config, *COMMANDS, *(row.options for row in EXPORTS)]
    names = {name for cls in classes for name in _names_of(cls, "")} | {"mask", "pyramid", "task", "help", "version"}
    negated = {".".join([*name.split(".")[:-1], f"no-{name.split('.')[-1]}"]) for name in names}
    return {f"--{name}" for name in names | negated}


def _names_of(cls: type, prefix: str) -> list[str]:
    names = []
    for field in dataclasses.fields(cls):
        name = prefix + field.name.replace("_", "-")
        names += _names_of(field.type, f"{name}.") if dataclasses.is_dataclass(field.type) else [name]
    return names
