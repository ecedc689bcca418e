"""Carries out `kfpn evaluate`: measures a detector, prints its figures and keeps what was asked for."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from kfpn.cli.options import Evaluate
from kfpn.cli.segment_commands import evaluate_segments_and_print, holds_segments
from kfpn.config.checks import require_local
from kfpn.config.test_scales import parse_scales
from kfpn.config.tile_options import asked_tiles

_OF_REQUEST = (
    "workdir", "data", "split", "batch_size", "flip", "proposals", "check_images", "eval_batch_size", "max_detections",
    "best_thresholds", "precision",
)  # fmt: skip
"""Options of the command that `EvaluationRequest` has under the same name."""
TILES_OF_TRAINING = "looks at tiles of {} pixels, as the run trained; --tiles 0 looks at whole images only"

WITHOUT_MASKS = "{}: no object has a mask, so only boxes are measured; the other figures are empty"


def evaluate_and_print(command: Evaluate) -> int:
    """Evaluates a detector, prints the figures and writes the files that were asked for; returns the exit code."""
    from kfpn.data.class_table import describe_source
    from kfpn.evaluation.best_thresholds import threshold_table
    from kfpn.evaluation.coco_rows import detections_to_coco
    from kfpn.evaluation.detection_limit import full_images_line, images_at_limit
    from kfpn.evaluation.recall import recall_line
    from kfpn.inference.evaluate import open_evaluation
    from kfpn.inference.evaluation_request import EvaluationRequest
    from kfpn.runs.atomic_files import write_json
    from kfpn.runs.workdir import Workdir

    for name, file in (("json", command.json), ("detections", command.detections)):
        if file:
            require_place(name, file)
    if holds_segments(command.workdir):
        return evaluate_segments_and_print(command)
    scales, tiles = (
        parse_scales(command.scales) or None,
        asked_tiles(command.tiles, command.overlap, command.tiles_only),
    )
    as_asked = {name: getattr(command, name) for name in _OF_REQUEST}
    evaluation = open_evaluation(EvaluationRequest(scales=scales, tiles=tiles, **as_asked))
    print(describe_source(evaluation.source), flush=True)
    if evaluation.tiles is not None and command.tiles is None:
        print(TILES_OF_TRAINING.format(evaluation.tiles.side), flush=True)
    figures, detections = evaluation.measure()
    print(f"{evaluation.source.name}: {len(evaluation.source)} images\n{_figures_table(figures)}")
    if figures.get("mask_AP", 0.0) is None and figures["AP"] is not None:
        print(WITHOUT_MASKS.format(evaluation.source.name))
    limit = evaluation.source_pass.config.model.max_detections
    if cut := images_at_limit(detections, limit):
        print(full_images_line(cut, len(evaluation.source), limit, "--max-detections"))
    if command.best_thresholds:
        rows = evaluation.keep_best_thresholds(detections)
        figures["thresholds"] = [dataclasses.asdict(row) for row in rows]
        print(f"best threshold of each class, kept in {Workdir(command.workdir).thresholds}:\n{threshold_table(rows)}")
    if evaluation.pyramid is not None:
        print(evaluation.pyramid.cost_line())
    if command.proposals:
        figures["proposals"] = evaluation.measure_proposals()
        print(recall_line(figures["proposals"]))
    if command.json:
        write_json(Path(command.json), figures)
    if command.detections:
        write_json(Path(command.detections), detections_to_coco(detections, evaluation.source.category_ids))
    return 0


def require_place(name: str, path: str) -> None:
    """Makes sure, before minutes of work, that the file that an option names can be written."""
    require_local(name, path)
    file = Path(path)
    if file.exists() and not file.is_file():
        raise ValueError(
            f"{file} must be the name of a file, got a {'folder' if file.is_dir() else 'device or a pipe'}"
        )
    if not file.parent.is_dir():
        raise ValueError(f"{file} must lie in a folder that is there, got {file.parent}, which is not")
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"{file} must lie in a folder that can be written, got {file.parent}: {error.strerror}"
        ) from error


def _figures_table(metrics: dict[str, Any]) -> str:
    """Lays out the figures: the twelve in two rows, those at the detector's own limit, the same of masks, then the classes."""
    from kfpn.evaluation.coco_figures import FIGURES, OF_MASKS
    from kfpn.evaluation.detection_limit import own_limit_figures

    def shown(value: float | None) -> str:
        return "   -  " if value is None else f"{value:6.4f}"

    of_masks = OF_MASKS + FIGURES[0] in metrics
    rows, own = [], own_limit_figures(metrics)
    for prefix, title in (("", "boxes:"), (OF_MASKS, "masks:"))[: 2 if of_masks else 1]:
        at_limit = tuple(name.removeprefix(OF_MASKS) for name in own if name.startswith(OF_MASKS) == bool(prefix))
        parts = (FIGURES[:6], FIGURES[6:], *([at_limit] if at_limit else []))
        rows += [title] if of_masks else []
        rows += ["  ".join(f"{name:>5} {shown(metrics[prefix + name])}" for name in part) for part in parts]
    width = max(map(len, metrics["per_class"]), default=0)
    kinds = ("per_class", OF_MASKS + "per_class")[: 2 if of_masks else 1]
    rows += ["AP of each class, boxes and masks:" if of_masks else "AP of each class:"]
    rows += [
        f"  {name:<{width}}  " + "  ".join(shown(metrics[kind][name]) for kind in kinds)
        for name in metrics["per_class"]
    ]
    return "\n".join(rows)
