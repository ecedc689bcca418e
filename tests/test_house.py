"""Checks the rules for sizes and names: what a newcomer can read on one screen, and find by its one name."""

import ast
import collections
import dataclasses
import functools
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LONGEST_FILE = 270
LONGEST_FUNCTION = 50
"""Lines, without the docstring."""
MOST_PARAMETERS = 6

MANY_PARAMETERS: dict[str, str] = {
    "build_detector": "public: what people choose are keyword arguments with defaults",
    "dataset": "public: what people choose are keyword arguments with defaults",
    "draw_detections": "public: what people choose are keyword arguments with defaults",
    "evaluate": "public: what people choose are keyword arguments with defaults",
    "export_saved_model": "public: what people choose are keyword arguments with defaults",
}
"""Functions that have more parameters, with the reason."""

CALLED_BY_ONE_NAME = {
    "build": "backbones and heads",
    "build_last_stage": "backbones",
    "prepare": "backbones",
    "settings_of_layers": "backbones",
    "unused_settings": "backbones",
    "select": "heads",
    "losses": "heads",
    "open_place": "data formats",
    "validation_data": "data formats",
    "annotation_files": "data formats",
    "__getattr__": "packages that load their names when they are asked for",
    "main": "programs",
    "run": "exports",
    "read": "makers of weights",
}
"""Names that several modules give to a function, because a table or a recipe calls it by this name; and what these modules are."""

ONE_NAME_FOR_TWO_MODULES = dict.fromkeys(("box", "cascade", "mask"), "a head and its loss")


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of kfpn: where it stands, how long it is without its docstring, and how many parameters it has."""

    place: str
    name: str
    lines: int
    parameters: int


@functools.cache
def trees_of(root):
    """Returns the syntax of each file of kfpn by its path; each is read once, for all tests."""
    return {
        path.relative_to(root): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((root / "kfpn").rglob("*.py"))
    }


def functions_of(root):
    """Yields every function and method. The `__init__` of a Keras layer counts as without parameters: they are its configuration."""
    for path, tree in trees_of(root).items():
        layers = {id(node) for owner in ast.walk(tree) if is_layer(owner) for node in owner.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    lines -= first.end_lineno - first.lineno + 1
                arguments = node.args
                names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
                names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a]
                count = len([name for name in names if name not in ("self", "cls")])
                of_layer = id(node) in layers and node.name == "__init__"
                yield Function(str(path), node.name, lines, 0 if of_layer else count)


def is_layer(node):
    return isinstance(node, ast.ClassDef) and any("kfpn" in ast.unparse(d) for d in node.decorator_list)


def places_of(root, kinds):
    """Returns name -> places of all top-level definitions of some kinds of syntax."""
    places = collections.defaultdict(list)
    for path, tree in trees_of(root).items():
        for node in tree.body:
            if isinstance(node, kinds):
                places[node.name].append(str(path))
    return places


def repeated(places, but=()):
    """Returns the names that stand in more than one place, without the names in `but`."""
    return {name: where for name, where in places.items() if len(where) > 1 and name not in but}


def test_at_most_three_files_stand_beside_the_rooms():
    assert len(list((ROOT / "kfpn").glob("*.py"))) <= 3


def test_no_file_is_longer_than_the_limit():
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in trees_of(ROOT)}
    assert {str(path): length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_longer_than_one_screen():
    assert [function for function in functions_of(ROOT) if function.lines > LONGEST_FUNCTION] == []


def test_functions_have_at_most_six_parameters():
    many = [function for function in functions_of(ROOT) if function.parameters > MOST_PARAMETERS]
    assert [function for function in many if function.name not in MANY_PARAMETERS] == []
    assert set(MANY_PARAMETERS) == {function.name for function in many}


def test_no_two_classes_and_no_two_functions_have_one_name():
    assert repeated(places_of(ROOT, ast.ClassDef)) == {}
    assert repeated(places_of(ROOT, ast.FunctionDef | ast.AsyncFunctionDef), CALLED_BY_ONE_NAME) == {}


def test_no_two_modules_have_one_name():
    stems = collections.defaultdict(list)
    for path in trees_of(ROOT):
        if path.name not in ("__init__.py", "__main__.py"):
            stems[path.stem].append(str(path))
    assert repeated(stems, ONE_NAME_FOR_TWO_MODULES) == {}
    folders = collections.defaultdict(list)
    for path in trees_of(ROOT):
        if path.name == "__init__.py":
            folders[path.parent.name].append(str(path))
    assert repeated(folders, ("formats",)) == {}


def test_module_docstrings_begin_with_what_the_module_does():
    for path, tree in trees_of(ROOT).items():
        docstring = ast.get_docstring(tree)
        assert docstring, path
        assert re.match(r"[A-Z][a-z]+s\b(?!')|Does\b", docstring), f"{path}: {docstring.splitlines()[0]}"


SECTION = re.compile(r"^\s*(Args|Call|Returns|Raises|Attributes|Yields):$")


def test_docstrings_leave_a_blank_line_before_each_section():
    crowded = []
    for path, tree in trees_of(ROOT).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                lines = (ast.get_docstring(node) or "").splitlines()
                crowded += [
                    f"{path}: {node.name}: {line.strip()}"
                    for before, line in itertools.pairwise(lines)
                    if SECTION.match(line) and before.strip()
                ]
    assert crowded == []


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("def f(a, b, *c, d, **e):\n    'doc'\n    return 1\n", Function("kfpn/some.py", "f", 2, 5)),
        (
            "class A:\n    def f(self, a):\n        '''One.\n\n        Two.\n        '''\n",
            Function("kfpn/some.py", "f", 1, 1),
        ),
        (
            "@keras.saving.register_keras_serializable('kfpn')\nclass A:\n    def __init__(self, a):\n        pass\n",
            Function("kfpn/some.py", "__init__", 2, 0),
        ),
    ],
)
def test_lines_and_parameters_are_counted(tmp_path, text, function):
    (tmp_path / "kfpn").mkdir()
    (tmp_path / "kfpn" / "some.py").write_text(text)
    assert list(functions_of(tmp_path)) == [function]


def test_a_class_name_that_stands_in_two_files_is_noticed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "kfpn" / name).mkdir(parents=True)
        (tmp_path / "kfpn" / name / "some.py").write_text("class A:\n    pass\n")
    assert repeated(places_of(tmp_path, ast.ClassDef)) == {"A": ["kfpn/one/some.py", "kfpn/two/some.py"]}


def test_no_variable_is_called_found():
    places = [
        f"{path}:{node.lineno}"
        for path, tree in trees_of(ROOT).items()
        for node in ast.walk(tree)
        if getattr(node, "id", getattr(node, "arg", None)) == "found"
    ]
    assert places == []
