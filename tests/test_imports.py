"""The direction of imports: each row of the table imports only rows above it, and no row's siblings import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROWS = """
kfpn.rules
kfpn.model_config
kfpn.config
kfpn.presets  kfpn.levels  kfpn.scales
kfpn.boxes  kfpn.losses
kfpn.anchors  kfpn.matching
kfpn.targets
kfpn.modeling  kfpn.modeling.layers  kfpn.modeling.padding  kfpn.modeling.nms  kfpn.modeling.adaptive
kfpn.modeling.resnet  kfpn.modeling.roi_align  kfpn.modeling.detections
kfpn.modeling.pyramid  kfpn.modeling.box_head
kfpn.modeling.rpn
kfpn.modeling.detector
kfpn.modeling.training
kfpn.modeling.fixed_proposals
kfpn.data  kfpn.data.record  kfpn.data.scenes
kfpn.data.image  kfpn.data.augment  kfpn.data.shapes
kfpn.data.checks  kfpn.data.plan  kfpn.data.proposals
kfpn.data.annotations  kfpn.data.memory
kfpn.data.coco  kfpn.data.voc  kfpn.data.tfds  kfpn.data.iterable  kfpn.data.fingerprint
kfpn.data.sources
kfpn.data.pipeline
kfpn.evaluation.coco  kfpn.visualize  kfpn.page
kfpn.visualize_pyramid
kfpn.evaluation.detect
kfpn.evaluation.proposals
kfpn.evaluation
kfpn.image_pyramid
kfpn.predict  kfpn.propose
kfpn.pyramid_maps
kfpn.engine.files
kfpn.engine  kfpn.engine.resolve  kfpn.engine.cluster  kfpn.engine.schedule  kfpn.engine.workdir  kfpn.engine.interrupt
kfpn.engine.strategy  kfpn.engine.checkpoint  kfpn.engine.optimizer  kfpn.engine.report  kfpn.engine.lock  kfpn.engine.precision
kfpn.engine.trained
kfpn.weights  kfpn.weights.plain  kfpn.weights.coco
kfpn.weights.unpickle  kfpn.weights.checkpoint
kfpn.weights.files  kfpn.weights.backbones  kfpn.weights.detectors
kfpn.weights.pretrained  kfpn.weights.torchvision  kfpn.weights.applications
kfpn.weights.detectron2
kfpn.weights.read
kfpn.weights.load
kfpn.weights.importing
kfpn.engine.follow
kfpn.engine.step
kfpn.engine.diagnose  kfpn.engine.results
kfpn.engine.nan
kfpn.engine.faults
kfpn.engine.loop
kfpn.engine.train
kfpn.export  kfpn.export.folding  kfpn.export.shapes  kfpn.export.onnx_runtimes
kfpn.export.trt_options
kfpn.export.source  kfpn.export.measure  kfpn.export.runners  kfpn.export.images
kfpn.export.benchmark  kfpn.export.archive  kfpn.export.saved_layers  kfpn.export.serving  kfpn.export.segments  kfpn.export.trt_layers
kfpn.export.verify  kfpn.export.convertible  kfpn.export.trt_check  kfpn.export.onnx_graph
kfpn.export.saved_model  kfpn.export.calibration  kfpn.export.onnx_check
kfpn.export.trt_inputs  kfpn.export.int8
kfpn.export.onnx  kfpn.export.tf_trt
kfpn.export.commands
kfpn.options
kfpn.commands
kfpn.cli
kfpn.__main__
"""

APART = (
    ("kfpn.data", "kfpn.modeling"),
    ("kfpn.evaluation", "kfpn.modeling"),
    ("kfpn.visualize", "kfpn.modeling"),
    ("kfpn.visualize_pyramid", "kfpn.modeling"),
)
"""Pairs (importer, imported) that the rows alone would let through: data and pictures know no network."""

FACE = "kfpn"
"""The package itself: it offers names of the rows below it, loaded when asked for."""

PURE = ("kfpn.boxes", "kfpn.losses", "kfpn.anchors", "kfpn.matching", "kfpn.targets", "kfpn.modeling")
"""What runs on every backend."""

KERNEL_OWNERS = ("kfpn.modeling.nms", "kfpn.modeling.roi_align")
"""The pure modules where TensorFlow may stand inside a function, for a kernel that is far faster."""


def modules_of(root):
    """Returns {module name: syntax tree} of the package `kfpn` in a folder."""
    trees = {}
    for path in sorted((root / "kfpn").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = (ast.parse(path.read_text(encoding="utf-8")), parts[-1] == "__init__")
    return trees


def imports_of(name, tree, is_package, modules):
    """Yields (imported module, whether inside a function) for each import of a module, `kfpn`'s and foreign ones."""
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


def faults_of(root, rows=ROWS):
    """Returns a sentence for each import of the tree that goes against the table."""
    rank = {name: index for index, row in enumerate(rows.split("\n")) for name in row.split()}
    modules = modules_of(root)
    faults = [f"{name} has no row in the table" for name in modules if name not in rank and name != FACE]
    for name, (tree, is_package) in modules.items():
        for target, lazy in imports_of(name, tree, is_package, modules):
            if target in rank and name in rank and rank[target] >= rank[name]:
                faults.append(f"{name} imports {target}, which does not stand above it")
            if any(under(name, importer) and under(target, imported) for importer, imported in APART):
                faults.append(f"{name} imports {target}; they stand apart")
            if name == FACE and under(target, "kfpn") and not lazy:
                faults.append(f"{name} imports {target} at once; it must be loaded when asked for")
            pure = any(under(name, package) for package in PURE)
            if pure and under(target, "tensorflow") and not (lazy and name in KERNEL_OWNERS):
                faults.append(f"{name} imports tensorflow; it must speak keras.ops")
        if not under(name, "kfpn.engine") and uses_distribute(tree):
            faults.append(f"{name} uses tf.distribute, which lives in kfpn.engine")
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
    """Returns each circle of imports once, found by walking in depth."""
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


def test_no_import_of_kfpn_goes_upward_or_in_a_circle():
    assert faults_of(ROOT) == []


def test_every_row_names_modules_that_exist():
    assert set(ROWS.split()) - set(modules_of(ROOT)) == set()


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("anchors.py", "from kfpn.targets import x", "kfpn.anchors imports kfpn.targets, which does not stand above"),
        ("anchors.py", "from kfpn import targets", "kfpn.anchors imports kfpn.targets, which does not stand above"),
        ("anchors.py", "import kfpn.matching", "kfpn.anchors imports kfpn.matching, which does not stand above"),
        ("anchors.py", "def f():\n    from . import cli", "kfpn.anchors imports kfpn.cli, which does not stand above"),
        ("modeling/rpn.py", "from ..engine.train import train", "kfpn.modeling.rpn imports kfpn.engine.train"),
        ("data/voc.py", "from kfpn.modeling.rpn import x", "kfpn.data.voc imports kfpn.modeling.rpn; they stand apart"),
        ("extra.py", "", "kfpn.extra has no row"),
        ("boxes.py", "import tensorflow as tf", "kfpn.boxes imports tensorflow"),
        ("boxes.py", "def f():\n    import tensorflow as tf", "kfpn.boxes imports tensorflow"),
        ("modeling/nms.py", "from tensorflow.image import x", "kfpn.modeling.nms imports tensorflow"),
        ("data/voc.py", "import tensorflow as tf\ntf.distribute.Strategy", "kfpn.data.voc uses tf.distribute"),
        ("__init__.py", "from kfpn.engine.train import train", "kfpn imports kfpn.engine.train at once"),
        ("engine/train.py", "from kfpn.cli import main", "circle: kfpn.cli -> kfpn.engine.train -> kfpn.cli"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, path, text, fault):
    package = tmp_path / "kfpn"
    for name in ("anchors", "boxes", "matching", "targets", "cli"):
        write(package / f"{name}.py", "")
    for name in ("modeling/nms", "modeling/rpn", "data/voc", "engine/train"):
        write(package / f"{name}.py", "")
    write(package / "__init__.py", "def f():\n    from kfpn.engine import train\n")
    write(package / "cli.py", "from kfpn import __version__\ndef f():\n    from kfpn.engine.train import train\n")
    write(package / "modeling" / "nms.py", "def f():\n    import tensorflow as tf\n")
    assert faults_of(tmp_path) == []
    write(package / path, text)
    assert any(found.startswith(fault) for found in faults_of(tmp_path)), faults_of(tmp_path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
