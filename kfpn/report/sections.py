"""Writes the sections of a report that show figures, errors and curves."""

import numpy as np

from kfpn.evaluation.coco_figures import FIGURES, OF_MASKS, measured_mean
from kfpn.evaluation.detection_limit import own_limit_figures
from kfpn.evaluation.error_analysis import CURVE_IOUS, SCORE_BINS, ErrorAnalysis, ErrorShare
from kfpn.evaluation.image_errors import KIND_MEANINGS
from kfpn.plotting.svg_charts import ChartBar, ChartLine, bar_chart, line_chart
from kfpn.report.gather import GatheredRun
from kfpn.report.html_parts import (
    BLUE,
    COLORS,
    GRAY,
    ORANGE,
    beside,
    css_color,
    folded,
    paragraph,
    section,
    share,
    small_print,
    table,
    text_of,
)

MOST_CURVES = 100
"""Classes whose curves are drawn, those with the most objects."""
KIND_NAMES = {"bbox": "boxes", "segm": "masks"}
"""What a page calls that which overlaps are measured of."""


def section_of_figures(run: GatheredRun) -> str:
    """Returns COCO's figures of boxes, and of masks where there are any."""
    names = (*FIGURES, *(name for name in own_limit_figures(run.figures) if not name.startswith(OF_MASKS)))
    kinds = [("boxes", "")] + ([("masks", OF_MASKS)] if OF_MASKS + "AP" in run.figures else [])
    rows = [[title, *(share(run.figures.get(prefix + name), 4) for name in names)] for title, prefix in kinds]
    note = (
        "By pycocotools. AP is the mean over classes and over IoUs of .50 to .95; AP50 and AP75 are those at one IoU; s, m, l: objects "
        "below 32 x 32 pixels, between, and from 96 x 96 pixels; AR: recall with 1, 10 and 100 detections an image and class."
        + _why_no_masks(run)
    )
    return section("figures", "COCO's figures", table(["", *names], rows), small_print(note))


def _why_no_masks(run: GatheredRun) -> str:
    """Returns why detections with masks are measured by their boxes alone; nothing where they have none, or masks are measured."""
    if OF_MASKS + "AP" not in run.figures or len(run.analyses) > 1:
        return ""
    if run.config.model.mask:
        return " Masks are not measured, because no object has one."
    return " Masks are not measured, because the run has no mask head: its data are read without masks."


def section_of_errors(run: GatheredRun) -> str:
    """Returns the kinds of errors, and what mending each would give."""
    parts = []
    for analysis in run.analyses:
        most = max((error.gain for error in analysis.errors), default=0.0)
        bars = [
            ChartBar(error.kind, error.gain, f"+{error.gain:.3f} AP50 ({_counted(error)})", COLORS[error.kind])
            for error in analysis.errors
        ]
        title = f"{KIND_NAMES[analysis.kind]}: AP50 is {analysis.ap50:.3f}; mending all of a kind would add"
        parts.append(f"<h3>{title}</h3>{bar_chart(title, bars, max(most, 0.01))}")
    meanings = "".join(f"<li><b>{kind}</b>: {text_of(meaning)}</li>" for kind, meaning in KIND_MEANINGS.items())
    note = (
        "As TIDE counts them (Bolya et al. 2020), at an IoU of .5. Look at the gains, not at the counts: a detector gives many "
        "detections of very low score, which predict does not show. They are counted here, so there can be more wrong detections than "
        "objects, and most of them cost nothing. Each gain is that of one kind alone; they don't add up."
    )
    return section("errors", "What goes wrong", beside(*parts), f'<ul class="note">{meanings}</ul>', paragraph(note))


def _counted(error: ErrorShare) -> str:
    """Returns how many errors of a kind there are, in words that say what is counted."""
    return f"{error.count:,} objects" if error.kind == "missed" else f"{error.count:,} detections"


def section_of_curves(run: GatheredRun) -> str:
    """Returns the curves of precision over recall, of all classes together and of each class."""
    parts = []
    for analysis in run.analyses:
        name = KIND_NAMES[analysis.kind]
        overall = [
            ChartLine(f"IoU {iou:g}: AP {share(measured_mean(analysis.curves[iou]))}", mean_curve(analysis, iou), color)
            for iou, color in zip(CURVE_IOUS, (BLUE, ORANGE), strict=True)
        ]
        charts = [f"<h3>{name}, mean over the classes</h3>" + line_chart(name, "recall", "precision", overall)]
        for iou in CURVE_IOUS:
            title = f"{name}, each class at IoU {iou:g}"
            charts.append(f"<h3>{title}</h3>" + line_chart(title, "recall", "precision", _of_each_class(analysis, iou)))
        parts.append(beside(*charts))
    drawn = min(MOST_CURVES, len(run.source.class_names))
    left_out = "" if drawn == len(run.source.class_names) else f" Of the {drawn} classes with the most objects."
    note = f"The class that is chosen at the top stands out; the pointer on a curve shows its name.{left_out}"
    return section("curves", "Precision and recall", *parts, small_print(note))


def _of_each_class(analysis: ErrorAnalysis, iou: float) -> list[ChartLine]:
    values = analysis.curves[iou]
    order = sorted(range(len(analysis.classes)), key=lambda label: -analysis.classes[label].objects)[:MOST_CURVES]
    return [
        ChartLine(
            f"{analysis.classes[label].name}: {share(float(values[:, label].mean()))}", _points(values[:, label]), css_color(label),
            f'class="pr" data-class="{label}"', listed=len(analysis.classes) <= 6,
        )
        for label in sorted(order)
        if analysis.classes[label].objects
    ]  # fmt: skip


def mean_curve(analysis: ErrorAnalysis, iou: float) -> list[tuple[float, float]]:
    """Returns the points of the precision-recall curve at an IoU, the mean over the classes that have objects."""
    values = analysis.curves[iou]
    return _points(values[:, (values > -1).all(0)].mean(1))


def _points(precision: np.ndarray) -> list[tuple[float, float]]:
    return [(step / 100, float(value)) for step, value in enumerate(precision)]


def section_of_properties(run: GatheredRun) -> str:
    """Returns AP by size, by aspect ratio and by crowding."""
    parts = []
    for analysis in run.analyses:
        charts = []
        for title, rows in analysis.properties.items():
            bars = [
                ChartBar(row.name, row.ap, f"AP {share(row.ap)}, AP50 {share(row.ap50)}; {row.objects:,} objects")
                for row in rows
            ]
            charts.append(f"<h3>{KIND_NAMES[analysis.kind]}: {title}</h3>" + bar_chart(title, bars, 1.0))
        parts.append(beside(*charts))
    note = (
        "Of few objects, AP says little. By size and by aspect ratio objects outside of the range are "
        "ignored, as COCO does it; by crowding the images count."
    )
    return section("properties", "By size, shape and crowding", *parts, small_print(note))


def section_of_calibration(run: GatheredRun) -> str:
    """Returns how well scores tell what share of the detections is right."""
    parts = []
    for analysis in run.analyses:
        bins = [one for one in analysis.calibration if one.count]
        title = f"{KIND_NAMES[analysis.kind]}: expected calibration error {analysis.calibration_error:.3f}"
        lines = [
            ChartLine("as it should be", [(0.0, 0.0), (1.0, 1.0)], GRAY),
            ChartLine("this detector", [(one.score, one.right) for one in bins], BLUE),
        ]
        rows = [
            [f"{one.low:.1f} to {one.high:.1f}", share(one.score), share(one.right), f"{one.count:,}"] for one in bins
        ]
        chart = f"<h3>{title}</h3>" + line_chart(title, "mean score", "share that is right", lines)
        parts += [chart, table(["score", "mean score", "right", "detections"], rows)]
    note = (
        f"Detections in {SCORE_BINS} bins of their scores; right: an IoU of .5 or more with an object of the class that no better "
        "detection has. Below the gray line the detector is too sure of itself, above it too shy."
    )
    return section("calibration", "Can the scores be believed?", beside(*parts), small_print(note))


def section_of_classes(run: GatheredRun) -> str:
    """Returns AP of each class, with its numbers."""
    boxes = run.analyses[0]
    masks = run.analyses[1] if len(run.analyses) > 1 else None
    head = [
        "class",
        "objects",
        "images",
        "detections",
        "AP",
        "AP50",
        "AP75",
        *(["mask AP", "mask AP50"] if masks else []),
    ]
    order = sorted(
        range(len(boxes.classes)), key=lambda label: (boxes.classes[label].ap is None, boxes.classes[label].ap)
    )
    rows = []
    for label in order:
        one = boxes.classes[label]
        name = f'<span class="swatch" style="background:{css_color(label)}"></span>{text_of(one.name)}'
        row = [name, *(f"{number:,}" for number in (one.objects, one.images, one.detections))]
        row += [share(value) for value in (one.ap, one.ap50, one.ap75)]
        rows.append(row + ([share(masks.classes[label].ap), share(masks.classes[label].ap50)] if masks else []))
    listed = table(head, rows, [f'data-class="{label}"' for label in order])
    note = "The class with the lowest AP first. Detections of any score; a class without objects has no AP."
    content = listed if len(rows) <= 100 else folded(f"{len(rows):,} classes", listed)
    return section("classes", "Class by class", content, small_print(note))
