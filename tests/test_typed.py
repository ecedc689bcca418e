"""Checks what other people's type checkers see of kfpn: each public name, with all types of its signature."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kfpn

ROOT = Path(__file__).resolve().parents[1]

OF_USERS = """
import keras
import numpy as np

import kfpn

config: kfpn.Config = kfpn.Config(model=kfpn.ModelConfig(backbone="resnet18"))
result: dict = kfpn.train(config)
detector: keras.Model = kfpn.load_detector("runs/mine", padded=False)
tiles: kfpn.Tiles = kfpn.Tiles(640)
source: kfpn.Source = kfpn.open_source("coco:a.json", masks=True)
boxes: np.ndarray = source[0].boxes
version: str = kfpn.__version__
"""
FAULTS = (
    ("kfpn.Config(no_such_option=1)", "call-arg"),
    ("kfpn.load_detector(5)", "arg-type"),
    ("kfpn.build_detector(num_classes='3')", "arg-type"),
    ("kfpn.no_such_name", "attr-defined"),
    ("detector_name: int = kfpn.__version__", "assignment"),
)
"""Lines that a type checker must refuse, and the name that mypy gives to the fault."""


def types_file():
    return ast.parse((ROOT / "kfpn" / "__init__.pyi").read_text(encoding="utf-8"))


def untyped(function, is_method):
    """Returns the parameters of a function without a type, and "return" if that has none."""
    arguments = function.args
    names = [*arguments.posonlyargs, *arguments.args][1 if is_method else 0 :]
    names += [*arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]
    faults = [name.arg for name in names if name.annotation is None]
    return faults + ([] if function.returns or function.name == "__init__" else ["return"])


def untyped_of(tree, public):
    """Returns {"name" or "Class.method": parameters without a type} of the public name of a module."""
    faults = {}
    for node in tree.body:
        if getattr(node, "name", None) != public:
            continue
        members = [node] if isinstance(node, ast.FunctionDef) else node.body
        for member in members:
            if isinstance(member, ast.FunctionDef) and (member.name == "__init__" or not member.name.startswith("_")):
                static = any(ast.unparse(one) == "staticmethod" for one in member.decorator_list)
                lacking = untyped(member, is_method=member is not node and not static)
                if lacking:
                    faults[member.name if member is node else f"{public}.{member.name}"] = lacking
    return faults


def module_tree(name):
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def test_type_checkers_find_each_public_name_where_python_finds_it():
    rows = [node for node in types_file().body if isinstance(node, ast.ImportFrom)]
    places = {row.names[0].name: row.module for row in rows}
    modules = {name: kfpn._PLACES[name].rpartition(".")[0] for name in kfpn._MODULES}
    assert places == kfpn._PLACES | modules
    assert all(
        row.names[0].asname == row.names[0].name for row in rows
    )  # without it a checker takes the name for private


def named_places():
    """Returns (name, module) of each public name; of a public module those of what it offers."""
    for name, place in kfpn._PLACES.items():
        if name not in kfpn._MODULES:
            yield name, place
            continue
        rows = [node for node in module_tree(place).body if isinstance(node, ast.ImportFrom)]
        yield from ((offered.name, row.module) for row in rows for offered in row.names)


@pytest.mark.parametrize(("name", "place"), sorted(named_places()))
def test_every_parameter_of_a_public_name_has_a_type(name, place):
    assert untyped_of(module_tree(place), name) == {}


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("def f(a: int, *, b: str = '') -> None: ...", {}),
        ("def f(a, *b, c: int, **d): ...", {"f": ["a", "b", "d", "return"]}),
        ("class f:\n    def __init__(self, a): ...\n    def _g(self, a): ...\n    def g(self, a: int) -> int: ...", {"f.__init__": ["a"]}),
        ("class f:\n    @staticmethod\n    def g(a) -> int: ...", {"f.g": ["a"]}),
    ],
)  # fmt: skip
def test_a_missing_type_is_noticed(text, faults):
    assert untyped_of(ast.parse(text), "f") == faults


def test_a_program_of_a_user_is_checked_against_the_signatures(tmp_path):
    pytest.importorskip("mypy", reason='needs mypy: pip install -e ".[dev]"')
    lines = [*OF_USERS.strip().splitlines(), *(line for line, _ in FAULTS)]
    (tmp_path / "program.py").write_text("\n".join(lines) + "\n")
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\nfollow_imports_for_stubs = True\n")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path / "cache"), "program.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "MYPYPATH": str(ROOT)}
    )
    first = len(lines) - len(FAULTS) + 1
    told = [line for line in done.stdout.splitlines() if line.startswith("program.py") and ": error: " in line]
    expected = [(f"program.py:{first + row}:", f"[{code}]") for row, (_, code) in enumerate(FAULTS)]
    assert [(line.split(" ")[0], f"[{line.rsplit('[', 1)[1]}") for line in told] == expected, done.stdout + done.stderr
