"""Checks that only modeling/detector.py composes: no other module calls the stages of a detector one after the other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kfpn

ROOT = Path(kfpn.__file__).parent
DETECTOR = ROOT / "modeling" / "detector.py"
ASSEMBLE = (ROOT / "modeling" / "submodels.py", "assemble")
"""The function that ties all variables into one model, `weights_model`. It is the only other caller of several submodels."""

STAGES = {
    "features": {"features", "padded_features"},
    "rpn": {"rpn"},
    "propose": {"propose", "proposals", "Proposals", "select_proposals"},
    "pool": {"pool", "roi_align", "RoIAlign", "SparseRoIAlign", "TrainedSparseRoIAlign"},
    "heads": {"heads"},
    "select": {"select", "selections", "SelectDetections", "scored_boxes", "select_per_class", "select_by_kernel"},
}
"""Stage of `Detector` -> the names that call it: its method, a submodel, a layer, or the function that the layer calls."""
STAGE_OF = {name: stage for stage, names in STAGES.items() for name in names}
OVERRIDES = {*STAGES, "convolve", "first_stage", "second_stage", "run", "finish"}
"""Methods of `Detector`. An override may call the part of the chain that it replaces, as `super().heads(...)` does."""


def stage_called(call: ast.Call) -> str | None:
    """Returns the stage that a call runs: of `x.rpn(...)`, `rpn(...)`, `x.heads["box"](...)` or `RoIAlign(...)(...)`."""
    target = call.func
    while isinstance(target, ast.Subscript | ast.Call):
        target = target.value if isinstance(target, ast.Subscript) else target.func
    name = target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""
    return STAGE_OF.get(name)


def is_override(function: ast.FunctionDef, parent: ast.AST) -> bool:
    """Returns True if a function overrides a method of `Detector` in a class that derives from a detector."""
    bases = [ast.unparse(base) for base in parent.bases] if isinstance(parent, ast.ClassDef) else []
    return function.name in OVERRIDES and any("Detector" in base for base in bases)


def parts(tree: ast.Module, exempt: tuple[str, ...] = ()) -> Iterator[tuple[str, list[ast.Call]]]:
    """Yields the parts of a module with their calls: each override of a stage is a part, and all the rest is one part.

    All the rest is one part because a chain may be spread over several functions.
    """
    rest: list[ast.Call] = []

    def walk(node: ast.AST, calls: list[ast.Call]) -> Iterator[tuple[str, list[ast.Call]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef) and child.name in exempt and node is tree:
                continue
            if isinstance(child, ast.FunctionDef) and is_override(child, node):
                own: list[ast.Call] = []
                yield from walk(child, own)
                yield child.name, own
                continue
            if isinstance(child, ast.Call):
                calls.append(child)
            yield from walk(child, calls)

    yield from walk(tree, rest)
    yield "module", rest


def chains(source: str, exempt: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Returns the parts of a module that call more than one stage, and those stages in the detector's order."""
    composed = {}
    for name, calls in parts(ast.parse(source), exempt):
        called = {stage_called(call) for call in calls}
        if len(called - {None}) > 1:
            composed[name] = [stage for stage in STAGES if stage in called]
    return composed


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_no_other_module_calls_two_stages(path):
    exempt = (ASSEMBLE[1],) if path == ASSEMBLE[0] else ()
    if path == DETECTOR:
        assert chains(path.read_text()) == {"module": list(STAGES)}
    else:
        assert chains(path.read_text(), exempt) == {}


def test_assemble_needs_its_exception():
    assert chains(ASSEMBLE[0].read_text()) == {"module": ["features", "rpn"]}


CHAIN = """
def detect(submodels, config, images, sizes):
    levels = submodels.features(images)
    boxes, _ = Proposals(config.anchor_sizes, name="proposals")(levels, submodels.rpn(levels), sizes)
    pooled = RoIAlign(7)(levels, boxes, sizes)
    return SelectDetections()(submodels.heads["box"](pooled), boxes, sizes)
"""
SPREAD = """
def maps(submodels, images):
    return submodels.padded_features(images)

class Reader:
    def read(self, pooled):
        return self.submodels.heads["box"](pooled)
"""
UNPACKED = """
def losses(submodels, images):
    features, _, rpn, heads, _ = submodels
    return [rpn(level) for level in (features(images),)]
"""
METHODS = """
def detections(detector, images, sizes):
    rois = detector.propose(levels := detector.features(images, sizes), None, sizes)
    return (lambda boxes: detector.pool(levels, boxes, sizes))(rois.boxes)
"""
IN_AN_OVERRIDE = """
class Other(Detector):
    def propose(self, levels, rpn, image_sizes):
        return self.pool(levels, super().propose(levels, rpn, image_sizes), image_sizes)
"""


@pytest.mark.parametrize(
    ("source", "stages"),
    [
        (CHAIN, {"module": list(STAGES)}),
        (SPREAD, {"module": ["features", "heads"]}),
        (UNPACKED, {"module": ["features", "rpn"]}),
        (METHODS, {"module": ["features", "propose", "pool"]}),
        (IN_AN_OVERRIDE, {"propose": ["propose", "pool"]}),
    ],
    ids=["chain", "spread", "unpacked", "methods", "in_an_override"],
)
def test_a_module_that_writes_the_chain_down_is_noticed(source, stages):
    assert chains(source) == stages


ALLOWED = """
class Other(Detector):
    def propose(self, levels, rpn, image_sizes):
        return select_proposals(rpn, levels, image_sizes)

    def heads(self, pooled, training=None):
        return super().heads(pooled, training=True)

    def detect(self, images, sizes):
        return self.finish(self.run(images, sizes), sizes)
"""


def test_a_module_may_replace_stages_and_run_the_detector():
    assert chains(ALLOWED) == {}
