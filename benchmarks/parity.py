"""Compares kfpn's numbers with torchvision's and detectron2's, stage by stage, with the same weights.

    python benchmarks/parity.py --reference ../shared/parity          # prints the table and writes docs/parity.md

The references were made by the two libraries themselves; their weights are rebuilt by rule, written in the library's own
file format and imported as a user's file is. Differences are in units of each tensor's own standard deviation.
"""

import argparse
import dataclasses
import importlib.util
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kfpn.config.model import ModelConfig
from kfpn.config.run import Config, SamplingConfig
from kfpn.losses.matching import MatchRule, match
from kfpn.losses.targets import Targets
from kfpn.losses.training_losses import head_losses, rpn_losses
from kfpn.modeling.backbones import frozen_layers, resnet
from kfpn.modeling.detector import Detector, Rois, inference_model
from kfpn.modeling.layers import Normalize, SharedLayers
from kfpn.modeling.pooling import RoIAlign
from kfpn.modeling.proposals import ProposalRule, level_anchors, select_proposals, usable_anchors
from kfpn.modeling.submodels import Submodels, build_submodels
from kfpn.modeling.units import Units
from kfpn.ops import boxes as box_ops
from kfpn.weights.assign import assign_weights, model_config
from kfpn.weights.built_detector import variables_of
from kfpn.weights.identify import read_trained_weights
from kfpn.weights.makers.trained_weights import TrainedWeights

FOLDERS = ("torchvision_r50", "detectron2_r50")
LEVELS = ("P2", "P3", "P4", "P5", "P6")
XYXY = [1, 0, 3, 2]  # of yxyx, and of (dy, dx, dh, dw)


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        stage: what was compared.
        value: how far it is away.
        limit: how far it may be.
        unit: of both; `found` counts what was found and must be at least the limit.
    """

    stage: str
    value: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        """Whether it is near enough."""
        return self.value >= self.limit if self.unit.startswith("found") else self.value <= self.limit


class Reference:
    """One folder of references.

    Args:
        folder: with infer.npz, train.npz and weights.npz; weights.py lies beside it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.name = folder.name
        self.background_first = folder.name.startswith("torchvision")
        spec = importlib.util.spec_from_file_location("reference_weights", folder.parent / "weights.py")
        self.rule = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.rule)
        self.infer = np.load(folder / "infer.npz")
        self.train = np.load(folder / "train.npz")

    def write_checkpoint(self, where: Path) -> Path:
        """Writes the weights as the library does: .safetensors (torchvision's names) or .pkl (detectron2's)."""
        state = self.rule.state(str(self.folder))
        if self.background_first:
            from safetensors.numpy import save_file

            path = where / f"{self.name}.safetensors"
            save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, path)
        else:
            path = where / f"{self.name}.pkl"
            with open(path, "wb") as file:
                pickle.dump({"model": state, "__author__": "Detectron2 Model Zoo"}, file)
        return path

    def compare(self, key: str, array: np.ndarray, skip: np.ndarray | None = None) -> float:
        """Returns the largest difference from `key` of infer.npz, in its standard deviations.

        Args:
            key: of the reference.
            array: in the reference's layout.
            skip: bool, same shape: elements that are not compared.
        """
        shape, values, whole = self.rule.expected(self.infer, key)
        if tuple(array.shape) != tuple(shape):
            raise ValueError(f"{key} must have shape {shape}, got {array.shape}")
        std = float(np.std(values)) if whole else float(self.infer[f"{key}/mean_std"][1])
        mine = array if whole else self.rule.compact(array, len(values))
        difference = np.abs(np.asarray(mine, np.float64) - values)
        if skip is not None:
            difference = np.where(skip if whole else self.rule.compact(skip, len(values)), 0.0, difference)
        return float(difference.max()) / max(std, 1e-12)


@dataclasses.dataclass
class Imported:
    """A detector with a reference's weights.

    Attributes:
        reference: where they come from.
        trained: what was read.
        config: with the reference's thresholds and sampling.
        submodels: with the weights.
        backbone: images -> C2..C5, with the weights.
    """

    reference: Reference
    trained: TrainedWeights
    config: ModelConfig
    submodels: Submodels
    backbone: keras.Model


def import_reference(reference: Reference) -> Imported:
    """Writes a reference's weights to a file and imports it."""
    with tempfile.TemporaryDirectory() as folder:
        path = reference.write_checkpoint(Path(folder))
        trained = read_trained_weights(path)
        changes: dict[str, Any] = {"score_threshold": float(reference.infer["score_thresh"])}
        if not reference.background_first:
            changes["sampling_ratio"] = 2  # what the reference was made with; detectron2's default is 0
        config = model_config(trained, **changes)
        submodels = build_submodels(config)
        assign_weights(trained, submodels, vars(config) | {"sampling_ratio": trained.model["sampling_ratio"]})
    units = Units(config, SharedLayers(frozen_layers(config)))
    images = keras.Input((None, None, 3))
    normal = Normalize(config.pixel_mean, config.pixel_std)(images)
    backbone = keras.Model(images, list(resnet.build(units, normal).values()))
    weights = variables_of(submodels)
    for key, variable in variables_of(backbone).items():
        variable.assign(weights[key])
    return Imported(reference, trained, config, submodels, backbone)


def nchw(x: Any) -> np.ndarray:
    return np.transpose(np.asarray(x), (0, 3, 1, 2))


def to_xyxy(boxes: Any) -> np.ndarray:
    return np.asarray(boxes)[..., XYXY]


def image_of(data: Any) -> tuple[tf.Tensor, tf.Tensor]:
    image = data["image"][None].astype(np.float32)
    return tf.constant(image), tf.constant([image.shape[1:3]], tf.int32)


def feature_rows(imported: Imported) -> Iterator[Row]:
    """C2..C5, P2..P6, RPN logits and deltas, anchors."""
    reference, config = imported.reference, imported.config
    images, sizes = image_of(reference.infer)
    for i, stage in enumerate(imported.backbone(images, training=False), start=2):
        yield Row(f"C{i}", reference.compare(f"C{i}", nchw(stage)), 1e-3, "std")
    levels = imported.submodels.features(images, training=False)
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
    """The proposals, as a set."""
    reference, config = imported.reference, imported.config
    images, sizes = image_of(reference.infer)
    levels = imported.submodels.features(images, training=False)
    boxes, _, _ = select_proposals(
        imported.submodels.rpn(levels, training=False),
        level_anchors(levels, sizes, config),
        usable_anchors(levels, sizes, config),
        sizes,
        ProposalRule.of_inference(config),
    )
    found, _ = match_sets(to_xyxy(boxes[0]), reference.infer["proposals"], 0.999)
    yield Row("proposals", len(found), 998, f"found of {len(reference.infer['proposals'])}")


def roi_rows(imported: Imported) -> Iterator[Row]:
    """RoI features, box features, class logits and deltas of the probes, which reach all levels."""
    for key, name in (("probe_", "probes"), ("", "proposals")):
        yield from _roi_rows(imported, key, name)


def _roi_rows(imported: Imported, key: str, name: str) -> Iterator[Row]:
    reference, config = imported.reference, imported.config
    images, sizes = image_of(reference.infer)
    levels = imported.submodels.features(images, training=False)
    rois = reference.infer["probe_rois" if key else "proposals"][:, XYXY]
    align = RoIAlign(config.roi_size, config.sampling_ratio, config.aligned, config.canonical_size)
    features = align(levels, tf.constant(rois[None]), sizes)[0]
    head = imported.submodels.heads["box"]
    outputs = head(features, training=False)
    hidden = keras.Model(head.input, head.get_layer("head_relu2").output)(features, training=False)
    logits, deltas = np.asarray(outputs["logits"]), to_xyxy(outputs["deltas"])
    skip = None
    if reference.background_first:
        logits = np.roll(logits, 1, axis=-1)
        # The background's deltas are not imported: nothing reads them.
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
    """The final detections, end to end."""
    reference = imported.reference
    images, _ = image_of(reference.infer)
    model = inference_model(imported.submodels, imported.config)
    found = {name: np.asarray(value)[0] for name, value in model(images, training=False).items()}
    infer = reference.infer
    labels = infer["labels"] - 1 if reference.background_first else infer["labels"]
    pairs, _ = match_sets(to_xyxy(found["boxes"]), infer["boxes"], 0.99, found["labels"], labels)
    mine, theirs = np.array(pairs, int).reshape(-1, 2).T
    apart = np.abs(to_xyxy(found["boxes"])[mine] - infer["boxes"][theirs]).max()
    scores = np.abs(found["scores"][mine] - infer["scores"][theirs]).max()
    yield Row("detections", len(pairs), len(labels) - 1, f"found of {len(labels)}")
    yield Row("boxes of detections", float(apart), 0.05, "pixel")
    yield Row("scores of detections", float(scores), 1e-3, "")


def match_sets(
    mine: np.ndarray, theirs: np.ndarray, threshold: float, labels: Any = None, their_labels: Any = None
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Pairs boxes (n, 4) and (m, 4) xyxy one to one, best IoU first, above a threshold and of equal labels."""
    overlap = np.array(box_ops.iou(tf.constant(mine[:, XYXY]), tf.constant(theirs[:, XYXY].astype(np.float32))))
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
    return pairs, overlap


def training_rows(imported: Imported) -> Iterator[Row]:
    """Matches, targets, the four losses and the norms of all gradients, from the reference's sampled anchors and RoIs."""
    train, model = imported.reference.train, imported.config
    config = Config(model=model, sampling=SamplingConfig(**imported.trained.sampling))
    images, sizes = image_of(train)
    variables = {key: variable for key, variable in variables_of(imported.submodels).items() if variable.trainable}
    with tf.GradientTape() as tape:
        detector = Detector(imported.submodels, model)
        levels, outputs = detector.convolve(images, sizes, training=True)
        anchors = tf.concat([part[0] for part in level_anchors(levels, sizes, model)], axis=0)
        anchor_targets, matched = _anchor_targets(imported, anchors, config)
        roi_targets = _roi_targets(imported)
        rois = Rois(roi_targets.boxes, targets=roi_targets)
        heads = detector.second_stage(levels, rois.boxes, sizes, training=True)
        losses = {**rpn_losses(outputs, anchor_targets, config), **head_losses(heads, rois, {}, config)}
        total = tf.add_n([tf.reduce_sum(loss) for loss in losses.values()])
    gradients = tape.gradient(total, [variable.value for variable in variables.values()])
    wrong = int(np.sum(matched != train["rpn_matched"]))
    yield Row("matched anchors that differ", wrong, 0, f"of {len(train['rpn_matched'])}")
    encoded = box_ops.encode_boxes(*_roi_pairs(imported), box_ops.HEAD_DELTA_SCALE)
    positive = _labels(imported)[1]
    apart = np.abs(to_xyxy(encoded) - train["sampled_box_targets"])[positive].max()
    yield Row("box targets of positive RoIs", float(apart), 1e-3, "")
    names = {
        "rpn_class": ("loss_objectness", "loss_rpn_cls"), "rpn_box": ("loss_rpn_box_reg", "loss_rpn_loc"),
        "roi_class": ("loss_classifier", "loss_cls"), "roi_box": ("loss_box_reg", "loss_box_reg"),
    }  # fmt: skip
    for name, theirs in names.items():
        want = float(train[f"loss/{theirs[0 if imported.reference.background_first else 1]}"])
        yield Row(f"loss {name}", abs(float(losses[name][0]) - want) / abs(want), 1e-4, "relative")
    yield _gradient_row(imported, dict(zip(variables, gradients, strict=True)))


def _gradient_row(imported: Imported, gradients: dict[str, Any]) -> Row:
    train, worst = imported.reference.train, 0.0
    wanted = {key.removeprefix("grad_norm/") for key in train.files if key.startswith("grad_norm/")}
    mine = {imported.trained.tensors[key].name: gradient for key, gradient in gradients.items()}
    if set(mine) != wanted:
        raise ValueError(f"gradients must be those of {sorted(wanted - set(mine))}, got {sorted(set(mine) - wanted)}")
    for name, gradient in mine.items():
        want = float(train[f"grad_norm/{name}"])
        worst = max(worst, abs(float(tf.norm(gradient)) - want) / want)
    return Row(f"norms of {len(mine)} gradients", worst, 2e-3, "relative")


def _gt(imported: Imported) -> tuple[tf.Tensor, np.ndarray]:
    train = imported.reference.train
    labels = train["gt_labels"] - (1 if imported.reference.background_first else 0)
    return tf.constant(train["gt_boxes"][:, XYXY].astype(np.float32)), labels.astype(np.int32)


def _anchor_targets(imported: Imported, anchors: tf.Tensor, config: Config) -> tuple[Targets, np.ndarray]:
    train, sampling = imported.reference.train, config.sampling
    boxes, labels = _gt(imported)
    gt = {
        "gt_boxes": boxes[None],
        "gt_labels": tf.constant(labels[None]),
        "gt_crowd": tf.zeros((1, len(labels)), tf.bool),
    }
    rule = MatchRule(sampling.rpn_positive_iou, sampling.rpn_negative_iou, keep_best=True)
    matched, box = match(anchors[None], gt, rule)
    positive, negative = train["rpn_sampled_pos"], train["rpn_sampled_neg"]
    index = tf.constant(np.concatenate([positive, negative])[None].astype(np.int32))
    chosen = tf.gather(anchors, index[0])
    deltas = box_ops.encode_boxes(tf.gather(boxes, tf.gather(box[0], index[0])), chosen, box_ops.RPN_DELTA_SCALE)
    is_positive = tf.constant((np.arange(index.shape[1]) < len(positive))[None])
    valid = tf.ones_like(is_positive)
    return Targets(index, is_positive, valid, tf.zeros_like(index), deltas[None], chosen[None]), np.array(matched[0])


def _labels(imported: Imported) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels with the background last, and which are none."""
    labels, classes = imported.reference.train["sampled_labels"], imported.config.num_classes
    if imported.reference.background_first:
        labels = np.where(labels == 0, classes, labels - 1)
    return labels.astype(np.int32), labels != classes


def _roi_pairs(imported: Imported) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the ground-truth box of each sampled RoI, and the RoIs: (512, 4) yxyx."""
    rois = tf.constant(imported.reference.train["sampled_rois"][:, XYXY].astype(np.float32))
    boxes, _ = _gt(imported)
    return tf.gather(boxes, tf.argmax(box_ops.iou(rois, boxes), axis=1)), rois


def _roi_targets(imported: Imported) -> Targets:
    gt, rois = _roi_pairs(imported)
    labels, positive = _labels(imported)
    index = tf.range(len(labels))[None]
    deltas = box_ops.encode_boxes(gt, rois, box_ops.HEAD_DELTA_SCALE)
    flags = tf.constant(positive[None])
    return Targets(index, flags, tf.ones_like(flags), tf.constant(labels[None]), deltas[None], rois[None])


STAGES = (feature_rows, proposal_rows, roi_rows, detection_rows, training_rows)


def rows(folder: Path) -> list[Row]:
    """Returns the table of one reference."""
    imported = import_reference(Reference(folder))
    return [row for stage in STAGES for row in stage(imported)]


def table(tables: dict[str, list[Row]]) -> str:
    """Lays the tables of all references out beside each other, as Markdown."""
    lines = [f"| stage | {' | '.join(tables)} | at most |", f"|---|{'---|' * len(tables)}---|"]
    for line in zip(*tables.values(), strict=True):
        first = line[0]
        counts = first.unit.startswith(("found", "of "))
        shown = [f"{row.value:.0f} {row.unit}" if counts else f"{row.value:.1e}" for row in line]
        name = first.stage if len({row.stage for row in line}) == 1 else " / ".join(row.stage for row in line)
        limit = f"at least {first.limit:.0f}" if first.unit.startswith("found") else f"{first.limit:g} {first.unit}"
        lines.append(f"| {name} | {' | '.join(shown)} | {limit if not first.unit.startswith('of ') else '0'} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=Path("../shared/parity"))
    parser.add_argument("--page", type=Path, default=Path("docs/parity.md"), help="its table is replaced")
    args = parser.parse_args()
    if not all((args.reference / name / "infer.npz").exists() for name in FOLDERS):
        parser.error(f"--reference must hold {' and '.join(FOLDERS)}, got {args.reference}")
    tables = {name: rows(args.reference / name) for name in FOLDERS}
    text = table(tables)
    print(text)
    if args.page.exists():
        before, _, rest = args.page.read_text().partition("<!-- table -->")
        _, _, after = rest.partition("<!-- /table -->")
        args.page.write_text(f"{before}<!-- table -->\n{text}\n<!-- /table -->{after}")
    failed = [f"{name}: {row}" for name, found in tables.items() for row in found if not row.holds]
    if failed:
        raise SystemExit("\n".join(["too far away:", *failed]))


if __name__ == "__main__":
    main()
