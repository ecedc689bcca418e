"""The direction of imports: each row of the table imports only rows above it, and no row's siblings import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROWS = """
kfpn.config.checks
kfpn.config.model
kfpn.config.run
kfpn.config.presets  kfpn.ops.pyramid_levels  kfpn.config.test_scales
kfpn.ops.boxes  kfpn.losses.terms
kfpn.ops.anchors  kfpn.losses.matching
kfpn.losses.targets
kfpn.modeling  kfpn.modeling.layers  kfpn.ops.padding  kfpn.ops.nms  kfpn.ops.roi_align_adaptive
kfpn.modeling.backbones.resnet  kfpn.ops.roi_align  kfpn.modeling.heads.detections
kfpn.modeling.pyramid  kfpn.modeling.heads.box
kfpn.modeling.rpn
kfpn.modeling.detector
kfpn.losses.training_losses
kfpn.modeling.fast_rcnn
kfpn.data  kfpn.data.record  kfpn.data.toy_scenes
kfpn.data.image  kfpn.data.augment  kfpn.data.formats.toy_shapes
kfpn.data.annotation_checks  kfpn.data.plan  kfpn.data.proposal_table
kfpn.data.formats.annotations  kfpn.data.memory_limit
kfpn.data.formats.coco  kfpn.data.formats.voc  kfpn.data.formats.tfds  kfpn.data.formats.iterable  kfpn.data.fingerprint
kfpn.data.formats
kfpn.data.pipeline
kfpn.evaluation.coco_figures  kfpn.plotting.draw_boxes  kfpn.plotting.panels
kfpn.plotting.pyramid_page
kfpn.evaluation.detect
kfpn.evaluation.recall
kfpn.evaluation
kfpn.inference.image_pyramid
kfpn.inference.predict  kfpn.inference.write_proposals
kfpn.inference.inspect_pyramid
kfpn.runs.atomic_files
kfpn.engine  kfpn.training.distribution.cluster_resolver  kfpn.training.distribution.cluster  kfpn.training.schedule  kfpn.runs.workdir  kfpn.training.interrupt
kfpn.training.distribution.strategy  kfpn.runs.checkpoint  kfpn.training.optimizer  kfpn.training.progress  kfpn.runs.lock  kfpn.runs.precision
kfpn.runs.load
kfpn.weights  kfpn.weights.formats.safe_values  kfpn.weights.makers.coco_classes
kfpn.weights.formats.unpickle  kfpn.weights.trained_weights
kfpn.weights.formats.file_formats  kfpn.weights.makers.resnet_names  kfpn.weights.makers.detector_layout
kfpn.weights.pretrained  kfpn.weights.makers.torchvision  kfpn.weights.makers.keras_applications
kfpn.weights.makers.detectron2
kfpn.weights.identify
kfpn.weights.assign
kfpn.weights.import_weights
kfpn.training.distribution.worker_stubs
kfpn.training.step
kfpn.training.nonfinite.diagnose  kfpn.training.results
kfpn.training.nonfinite.recorder
kfpn.training.nonfinite.policy
kfpn.training.loop
kfpn.training.train
kfpn.export  kfpn.export.folding  kfpn.export.input_shape  kfpn.export.onnx.onnx_runtimes
kfpn.export.tf_trt.trt_options
kfpn.export.trained  kfpn.export.measure  kfpn.export.benchmark.runners  kfpn.export.saved_model.graph_images
kfpn.export.benchmark.race  kfpn.export.archive  kfpn.export.saved_model.sparse_roi_align  kfpn.export.saved_model.serving_files  kfpn.export.tf_trt.trt_partition  kfpn.export.tensorrt_layers
kfpn.export.verify  kfpn.export.tf_trt.converter_rules  kfpn.export.tf_trt.trt_verify  kfpn.export.onnx.onnx_detector
kfpn.export.saved_model.write_saved_model  kfpn.export.calibration  kfpn.export.onnx.onnx_verify
kfpn.export.tf_trt.trt_inputs  kfpn.export.onnx.int8
kfpn.export.onnx.write_onnx  kfpn.export.tf_trt.convert
kfpn.cli.export_commands
kfpn.cli.options
kfpn.cli.commands
kfpn.cli.main
kfpn.__main__
"""

APART = (
    ("kfpn.data", "kfpn.modeling"),
    ("kfpn.evaluation", "kfpn.modeling"),
    ("kfpn.plotting.draw_boxes", "kfpn.modeling"),
    ("kfpn.plotting.pyramid_page", "kfpn.modeling"),
)
"""Pairs (importer, imported) that the rows alone would let through: data and pictures know no network."""

FACE = "kfpn"
"""The package itself: it offers names of the rows below it, loaded when asked for."""

PURE = (
    "kfpn.ops.boxes",
    "kfpn.losses.terms",
    "kfpn.ops.anchors",
    "kfpn.losses.matching",
    "kfpn.losses.targets",
    "kfpn.modeling",
)
"""What runs on every backend."""

KERNEL_OWNERS = ("kfpn.ops.nms", "kfpn.ops.roi_align")
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
        (
            "anchors.py",
            "from kfpn.losses.targets import x",
            "kfpn.ops.anchors imports kfpn.losses.targets, which does not stand above",
        ),
        (
            "anchors.py",
            "from kfpn import targets",
            "kfpn.ops.anchors imports kfpn.losses.targets, which does not stand above",
        ),
        (
            "anchors.py",
            "import kfpn.losses.matching",
            "kfpn.ops.anchors imports kfpn.losses.matching, which does not stand above",
        ),
        (
            "anchors.py",
            "def f():\n    from . import cli",
            "kfpn.ops.anchors imports kfpn.cli.main, which does not stand above",
        ),
        ("modeling/rpn.py", "from ..engine.train import train", "kfpn.modeling.rpn imports kfpn.training.train"),
        (
            "data/voc.py",
            "from kfpn.modeling.rpn import x",
            "kfpn.data.formats.voc imports kfpn.modeling.rpn; they stand apart",
        ),
        ("extra.py", "", "kfpn.extra has no row"),
        ("boxes.py", "import tensorflow as tf", "kfpn.ops.boxes imports tensorflow"),
        ("boxes.py", "def f():\n    import tensorflow as tf", "kfpn.ops.boxes imports tensorflow"),
        ("modeling/nms.py", "from tensorflow.image import x", "kfpn.ops.nms imports tensorflow"),
        ("data/voc.py", "import tensorflow as tf\ntf.distribute.Strategy", "kfpn.data.formats.voc uses tf.distribute"),
        ("__init__.py", "from kfpn.training.train import train", "kfpn imports kfpn.training.train at once"),
        (
            "engine/train.py",
            "from kfpn.cli import main",
            "circle: kfpn.cli.main -> kfpn.training.train -> kfpn.cli.main",
        ),
    ],
)
def test_a_wrong_import_is_found(tmp_path, path, text, fault):
    package = tmp_path / "kfpn"
    for name in ("anchors", "boxes", "matching", "targets", "cli"):
        write(package / f"{name}.py", "")
    for name in ("modeling/nms", "modeling/rpn", "data/voc", "engine/train"):
        write(package / f"{name}.py", "")
    write(package / "__init__.py", "def f():\n    from kfpn.engine import train\n")
    write(package / "cli.py", "from kfpn import __version__\ndef f():\n    from kfpn.training.train import train\n")
    write(package / "modeling" / "nms.py", "def f():\n    import tensorflow as tf\n")
    assert faults_of(tmp_path) == []
    write(package / path, text)
    assert any(found.startswith(fault) for found in faults_of(tmp_path)), faults_of(tmp_path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
