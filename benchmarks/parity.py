"""Compares kfpn's numbers with torchvision's and detectron2's, stage by stage, with the same weights.

    python benchmarks/parity.py --reference ../shared/parity          # prints the tables and writes docs/parity.md
    python benchmarks/parity.py --tables masks                        # only that of masks

The two libraries themselves computed the reference numbers. Their weights follow from a rule: the script makes them again,
writes them in the library's own file format, and imports that file as it imports a user's. A difference is given in units
of the tensor's own standard deviation.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from parity_masks import MASK_FOLDERS, mask_detection_rows, mask_rows, mask_target_rows
from parity_reference import FOLDERS, XYXY, Imported, Reference, Row, image_of, import_reference, nchw, to_xyxy
from parity_training import training_rows

from kfpn.modeling.detector import inference_model
from kfpn.modeling.pooling import RoIAlign
from kfpn.modeling.proposals import ProposalRule, level_anchors, select_proposals, usable_anchors
from kfpn.ops import boxes as box_ops

Stage = Callable[[Imported], Iterator[Row]]
LEVELS = ("P2", "P3", "P4", "P5", "P6")


def feature_rows(imported: Imported) -> Iterator[Row]:
    """Compares C2..C5, P2..P6, the RPN's logits and deltas, and the anchors."""
    reference, config = imported.reference, imported.config
    images, sizes = image_of(reference.infer)
    for i, stage in enumerate(imported.backbone(images, training=False), start=2):
        yield Row(f"C{i}", reference.compare(f"C{i}", nchw(stage)), 1e-3, "std")
    levels = imported.levels
    for level in LEVELS:
        yield Row(level, reference.compare(level, nchw(levels[level])), 1e-3, "std")
    outputs = imported.submodels.rpn(levels, training=False)
    for i, level in enumerate(LEVELS):
        cells = levels[level].shape[1:3]
        logits = np.asarray(outputs["logits"][i]).reshape(1, *cells, 3)
        deltas = np.asarray(outputs["deltas"][i]).reshape(1, *cells, 3, 4)[..., XYXY].reshape(1, *cells, 12)
        yield Row(f"RPN logits {level}", reference.compare(f"rpn_logits_{level}", nchw(logits)), 1e-3, "std")
        yield Row(f"RPN deltas {level}", reference.compare(f"rpn_deltas_{level}", nchw(deltas)), 1e-3, "std")
    anchors = np.concatenate([np.asarray(part)[0] for part in level_anchors(levels, sizes, config)])
    worst = np.abs(to_xyxy(anchors) - reference.infer["anchors"]).max()
    yield Row("anchors", float(worst), 1e-4, "pixel")


def proposal_rows(imported: Imported) -> Iterator[Row]:
    """Compares the proposals as a set: counts those of the reference that are found."""
    reference, config = imported.reference, imported.config
    _, sizes = image_of(reference.infer)
    levels = imported.levels
    boxes, _, _ = select_proposals(
        imported.submodels.rpn(levels, training=False),
        level_anchors(levels, sizes, config),
        usable_anchors(levels, sizes, config),
        sizes,
        ProposalRule.of_inference(config),
    )
    pairs = match_sets(to_xyxy(boxes[0]), reference.infer["proposals"], 0.999)
    yield Row("proposals", len(pairs), 998, f"found of {len(reference.infer['proposals'])}")


def roi_rows(imported: Imported) -> Iterator[Row]:
    """Compares RoI features, box features, class logits and deltas: of the probes, which reach all levels, and of the proposals."""
    for key, name in (("probe_", "probes"), ("", "proposals")):
        yield from _roi_rows(imported, key, name)


def _roi_rows(imported: Imported, key: str, name: str) -> Iterator[Row]:
    reference, config = imported.reference, imported.config
    _, sizes = image_of(reference.infer)
    levels = imported.levels
    rois = reference.infer["probe_rois" if key else "proposals"][:, XYXY]
    align = RoIAlign(
        config.roi_size, config.sampling_ratio, config.aligned, config.canonical_size, padding=config.padding
    )
    features = align(levels, tf.constant(rois[None]), sizes)[0]
    head = imported.submodels.heads["box"]
    outputs = head(features, training=False)
    hidden = keras.Model(head.input, head.get_layer("head_relu2").output)(features, training=False)
    logits, deltas = np.asarray(outputs["logits"]), to_xyxy(outputs["deltas"])
    skip = None
    if reference.background_first:
        logits = np.roll(logits, 1, axis=-1)
        # The background's deltas are not imported, because no part of kfpn reads them. So they are not compared.
        deltas = np.pad(deltas, ((0, 0), (1, 0), (0, 0)))
        skip = np.zeros(deltas.shape, bool)
        skip[:, 0] = True
        skip = skip.reshape(len(skip), -1)
    yield Row(f"RoI features, {name}", reference.compare(f"{key}roi_features", nchw(features)), 2e-3, "std")
    yield Row(f"box features, {name}", reference.compare(f"{key}box_features", np.asarray(hidden)), 2e-3, "std")
    yield Row(f"class logits, {name}", reference.compare(f"{key}class_logits", logits), 2e-3, "std")
    deltas = deltas.reshape(len(deltas), -1)
    yield Row(f"box deltas, {name}", reference.compare(f"{key}box_deltas", deltas, skip), 2e-3, "std")


def detection_rows(imported: Imported) -> Iterator[Row]:
    """Compares the final detections, end to end, of the image alone and beside another one in a batch."""
    images, _ = image_of(imported.reference.infer)
    model = inference_model(imported.submodels, imported.config)
    yield from _detection_rows(imported.reference, model(images, training=False), "")
    # The other image is smaller, so that the library too would pad the batch to the size that it padded the image to.
    height, width = images.shape[1:3]
    batch = np.zeros((2, height, width, 3), np.float32)
    batch[0, : height - 9, : width - 20], batch[1] = images[0, :0:-1, :0:-1][: height - 9, : width - 20], images[0]
    sizes = np.array([[height - 9, width - 20], [height, width]], np.int32)
    padded = inference_model(imported.submodels, imported.config, padded=True)
    outputs = padded({"images": tf.constant(batch), "image_sizes": tf.constant(sizes)}, training=False)
    yield from _detection_rows(imported.reference, {name: value[1:] for name, value in outputs.items()}, ", in a batch")


def _detection_rows(reference: Reference, outputs: dict[str, Any], place: str) -> Iterator[Row]:
    detections = {name: np.asarray(value)[0] for name, value in outputs.items()}
    infer = reference.infer
    labels = infer["labels"] - 1 if reference.background_first else infer["labels"]
    pairs = match_sets(to_xyxy(detections["boxes"]), infer["boxes"], 0.99, detections["labels"], labels)
    own, theirs = np.array(pairs, int).reshape(-1, 2).T
    of_boxes = np.abs(to_xyxy(detections["boxes"])[own] - infer["boxes"][theirs]).max()
    of_scores = np.abs(detections["scores"][own] - infer["scores"][theirs]).max()
    yield Row(f"detections{place}", len(pairs), len(labels) - 1, f"found of {len(labels)}")
    yield Row(f"boxes of detections{place}", float(of_boxes), 0.05, "pixel")
    yield Row(f"scores of detections{place}", float(of_scores), 1e-3, "")


def match_sets(
    own: np.ndarray, theirs: np.ndarray, threshold: float, labels: Any = None, their_labels: Any = None
) -> list[tuple[int, int]]:
    """Pairs boxes (n, 4) and (m, 4) xyxy one to one, the best IoU first.

    Args:
        own: kfpn's boxes.
        theirs: the reference's boxes.
        threshold: a pair must have a larger IoU.
        labels: of `own`; None pairs boxes of any label.
        their_labels: of `theirs`; a pair has equal labels.

    Returns:
        The pairs (index into `own`, index into `theirs`).
    """
    overlap = np.array(box_ops.iou(tf.constant(own[:, XYXY]), tf.constant(theirs[:, XYXY].astype(np.float32))))
    if labels is not None:
        overlap = np.where(np.asarray(labels)[:, None] == np.asarray(their_labels)[None], overlap, 0.0)
    rows, columns = np.nonzero(overlap > threshold)
    pairs, used_rows, used_columns = [], set(), set()
    for i in np.argsort(-overlap[rows, columns], kind="stable"):
        row, column = int(rows[i]), int(columns[i])
        if row not in used_rows and column not in used_columns:
            pairs.append((row, column))
            used_rows.add(row)
            used_columns.add(column)
    return pairs


STAGES = (feature_rows, proposal_rows, roi_rows, detection_rows, training_rows)
MASK_STAGES = (mask_rows, mask_detection_rows, mask_target_rows, training_rows)
TABLES: dict[str, tuple[Sequence[str], Sequence[Stage]]] = {
    "table": (FOLDERS, STAGES),
    "masks": (MASK_FOLDERS, MASK_STAGES),
}
"""Name of a table, as it stands in the page's comments -> its references and its stages."""


def rows(folder: Path, stages: Sequence[Stage]) -> list[Row]:
    """Returns the rows of one reference."""
    imported = import_reference(Reference(folder))
    return [row for stage in stages for row in stage(imported)]


def table(tables: dict[str, list[Row]]) -> str:
    """Writes the rows of all references beside each other, as one Markdown table."""
    lines = [f"| stage | {' | '.join(tables)} | at most |", f"|---|{'---|' * len(tables)}---|"]
    by_stage = [{row.stage: row for row in rows} for rows in tables.values()]
    for stage in dict.fromkeys(row.stage for rows in tables.values() for row in rows):  # not all have all rows
        line = [rows.get(stage) for rows in by_stage]
        first = next(row for row in line if row is not None)
        counts = first.unit.startswith(("found", "of "))
        shown = [
            "-" if row is None else f"{row.value:.0f} {row.unit}" if counts else f"{row.value:.1e}" for row in line
        ]
        limit = f"at least {first.limit:.0f}" if first.unit.startswith("found") else f"{first.limit:g}"
        unit = f" {first.unit}" if first.unit and not counts else ""
        lines.append(f"| {stage} | {' | '.join(shown)} | {limit}{unit} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=Path("../shared/parity"))
    parser.add_argument("--page", type=Path, default=Path("docs/parity.md"), help="the page whose table is replaced")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="the tables to make")
    args = parser.parse_args()
    folders = [folder for name in args.tables for folder in TABLES[name][0]]
    if not all((args.reference / name / "infer.npz").exists() for name in folders):
        parser.error(f"--reference must hold {' and '.join(folders)}, got {args.reference}")
    failed = []
    for name in args.tables:
        of_table, stages = TABLES[name]
        tables = {folder: rows(args.reference / folder, stages) for folder in of_table}
        text = table(tables)
        print(text)
        if args.page.exists():
            before, _, rest = args.page.read_text().partition(f"<!-- {name} -->")
            _, _, after = rest.partition(f"<!-- /{name} -->")
            args.page.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{after}")
        failed += [f"{folder}: {row}" for folder, lines in tables.items() for row in lines if not row.holds]
    if failed:
        raise SystemExit("\n".join(["these rows break their limit:", *failed]))


if __name__ == "__main__":
    main()
