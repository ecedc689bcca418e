"""Checks the direction of imports: each room imports only rooms above it, and imports make no circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROOMS = (
    "config",
    "ops",
    "modeling",
    "losses",
    "kernels",
    "data",
    "plotting",
    "evaluation",
    "runs",
    "weights",
    "inference",
    "report",
    "demo",
    "training",
    "export",
    "cli",
)
"""The packages of kfpn: each imports only packages that stand before it here."""

APART = (("data", "modeling"), ("data", "losses"), ("plotting", "modeling"), ("plotting", "losses"),
         ("plotting", "data"), ("evaluation", "modeling"), ("evaluation", "losses"), ("training", "inference"),
         ("training", "report"), ("training", "demo"))  # fmt: skip
"""Pairs (importer, imported) that are forbidden although the order allows them: data, plots and figures use no network."""

FACE = "kfpn"
"""The package itself: it offers names of the rooms, and loads them when they are asked for."""
LOOSE = ("kfpn.renamed", "kfpn.__main__")
"""The files that stand in no room."""

PURE = ("config", "ops", "modeling", "losses")
"""The rooms that run on every backend."""

KERNEL_OWNERS = ("kfpn.ops.nms",)
"""Modules of pure rooms that may import TensorFlow inside a function, for a kernel that is far faster."""


def modules_of(root):
    """Returns {module name: syntax tree} of the package `kfpn` in a folder."""
    trees = {}
    for path in sorted((root / "kfpn").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = (ast.parse(path.read_text(encoding="utf-8")), parts[-1] == "__init__")
    return trees


def imports_of(name, tree, is_package, modules):
    """Yields (imported module, True if inside a function) for each import of a module, of kfpn and of other packages."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    package = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in modules else source, id(node) in inside


def under(name, package):
    return name == package or name.startswith(package + ".")


def room_of(name):
    """Returns the room of a module, or "" for a module of FACE or LOOSE."""
    return name.split(".")[1] if name.count(".") and name not in LOOSE else ""


def faults_of(root, rooms=ROOMS):
    """Returns a sentence for each import of the tree that goes against the order of the rooms."""
    modules = modules_of(root)
    faults = [f"{name} stands in no room" for name in modules if room_of(name) not in ("", *rooms)]
    for name, (tree, is_package) in modules.items():
        own = room_of(name)
        for target, lazy in imports_of(name, tree, is_package, modules):
            other = room_of(target) if under(target, FACE) else ""
            if own in rooms and other in rooms and rooms.index(other) > rooms.index(own):
                faults.append(f"{name} imports {target}, whose room does not stand above its own")
            if (own, other) in APART:
                faults.append(f"{name} imports {target}; its room must not import that room")
            if name == FACE and other and not lazy:
                faults.append(f"{name} imports {target} at once; it must load it only when it is asked for")
            if own in PURE and under(target, "tensorflow") and not (lazy and name in KERNEL_OWNERS):
                faults.append(f"{name} imports tensorflow; it must use keras.ops")
        if own != "training" and uses_distribute(tree):
            faults.append(f"{name} uses tf.distribute, which only kfpn.training may use")
    return faults + [f"circle: {' -> '.join(circle)}" for circle in circles_of(modules)]


def uses_distribute(tree):
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "distribute"
        and isinstance(node.value, ast.Name)
        and node.value.id in ("tf", "tensorflow")
        for node in ast.walk(tree)
    ) or any(
        isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorflow.distribute")
        for node in ast.walk(tree)
    )


def circles_of(modules):
    """Returns each circle of imports once, by a depth-first search."""
    graph = {
        name: sorted({target for target, _ in imports_of(name, *tree, modules) if target in modules} - {FACE})
        for name, tree in modules.items()
        if name != FACE
    }
    circles, done = [], set()

    def walk(name, path):
        if name in path:
            circles.append([*path[path.index(name) :], name])
        elif name not in done:
            for target in graph[name]:
                walk(target, [*path, name])
            done.add(name)

    for name in graph:
        walk(name, [])
    return circles


def test_each_room_imports_only_rooms_above_it_and_there_is_no_circle():
    assert faults_of(ROOT) == []


def test_every_room_exists_and_only_the_named_files_stand_beside_them():
    modules = modules_of(ROOT)
    assert {room_of(name) for name in modules} == {"", *ROOMS}
    assert {name for name in modules if not room_of(name)} == {FACE, *LOOSE}


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("ops/anchors.py", "from kfpn.losses.targets import x", "kfpn.ops.anchors imports kfpn.losses.targets, whose"),
        ("ops/anchors.py", "from kfpn.losses import targets", "kfpn.ops.anchors imports kfpn.losses.targets, whose"),
        ("ops/anchors.py", "import kfpn.losses.targets", "kfpn.ops.anchors imports kfpn.losses.targets, whose room"),
        ("ops/anchors.py", "def f():\n    from ..cli import main", "kfpn.ops.anchors imports kfpn.cli.main, whose"),
        ("modeling/rpn.py", "from ..training.train import train", "kfpn.modeling.rpn imports kfpn.training.train"),
        ("data/plan.py", "from kfpn.modeling.rpn import x", "kfpn.data.plan imports kfpn.modeling.rpn; its room"),
        ("extra/some.py", "", "kfpn.extra.some stands in no room"),
        ("extra.py", "", "kfpn.extra stands in no room"),
        ("ops/boxes.py", "import tensorflow as tf", "kfpn.ops.boxes imports tensorflow"),
        ("ops/boxes.py", "def f():\n    import tensorflow as tf", "kfpn.ops.boxes imports tensorflow"),
        ("ops/nms.py", "from tensorflow.image import x", "kfpn.ops.nms imports tensorflow"),
        ("data/plan.py", "import tensorflow as tf\ntf.distribute.Strategy", "kfpn.data.plan uses tf.distribute"),
        ("__init__.py", "from kfpn.training.train import train", "kfpn imports kfpn.training.train at once"),
        ("ops/boxes.py", "from kfpn.ops.anchors import x", "circle: kfpn.ops.anchors -> kfpn.ops.boxes -> kfpn.ops."),
    ],
)
def test_a_wrong_import_is_noticed(tmp_path, path, text, fault):
    package = tmp_path / "kfpn"
    for name in ("ops/boxes", "losses/targets", "cli/main", "ops/nms", "modeling/rpn", "data/plan", "training/train"):
        write(package / f"{name}.py", "")
    write(package / "__init__.py", "def f():\n    from kfpn.training import train\n")
    write(package / "ops" / "anchors.py", "from kfpn.ops.boxes import x\n")
    write(
        package / "cli" / "main.py",
        "from kfpn import __version__\ndef f():\n    from kfpn.training.train import train\n",
    )
    write(package / "ops" / "nms.py", "def f():\n    import tensorflow as tf\n")
    assert faults_of(tmp_path) == []
    old = (package / path).read_text() if path == "ops/anchors.py" else ""
    write(package / path, old + text)
    assert any(sentence.startswith(fault) for sentence in faults_of(tmp_path)), faults_of(tmp_path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
