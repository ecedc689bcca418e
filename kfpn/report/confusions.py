"""Writes the section of a report that shows which classes are taken for which."""

import numpy as np

from kfpn.evaluation.error_analysis import ErrorAnalysis
from kfpn.report.gather import GatheredRun
from kfpn.report.html_parts import Cell, beside, section, small_print, table, text_of
from kfpn.report.sections import KIND_NAMES

MOST_CLASSES = 24
"""Classes of the matrix; of more, those with the most confusions are shown, and the others in one row."""
MOST_PAIRS = 12
"""Pairs of classes in the list of the commonest confusions."""
_OTHERS, _BACKGROUND = "other classes", "background"


def section_of_confusions(run: GatheredRun) -> str:
    """Returns the confusion matrix, and the pairs that are confused most."""
    parts = []
    for analysis in run.analyses:
        kind = KIND_NAMES[analysis.kind]
        names, matrix = condensed(analysis)
        parts.append(f"<h3>{kind}: rows are objects, columns are detections</h3>" + _matrix(names, matrix))
        if pairs := _pairs(analysis):
            parts.append(
                f"<h3>{kind}: most often taken for each other</h3>" + table(["object", "taken for", "times"], pairs)
            )
    note = (
        f"At an IoU of .5, detections with a score of {run.request.min_score:g} or more, whatever their class: the best one of an object "
        "counts. The column background: missed objects. The row background: detections where no object is, and second ones of an object."
    )
    return section("confusions", "Taken for each other", beside(*parts), small_print(note))


def condensed(analysis: ErrorAnalysis) -> tuple[list[str], np.ndarray]:
    """Returns the names and the confusion matrix of the classes that are shown; the background is the last of both."""
    matrix, count = analysis.confusion, len(analysis.classes)
    names = [one.name for one in analysis.classes]
    if count <= MOST_CLASSES:
        return [*names, _BACKGROUND], matrix
    between = matrix[:count, :count] * (1 - np.eye(count, dtype=np.int64))
    shown = sorted(np.argsort(-(between.sum(0) + between.sum(1)), kind="stable")[:MOST_CLASSES].tolist())
    group = np.full(count + 1, MOST_CLASSES)
    group[shown], group[count] = np.arange(MOST_CLASSES), MOST_CLASSES + 1
    sums = np.zeros((MOST_CLASSES + 2, MOST_CLASSES + 2), np.int64)
    np.add.at(sums, (group[:, None], group[None]), matrix)
    return [*(names[label] for label in shown), _OTHERS, _BACKGROUND], sums


def _matrix(names: list[str], matrix: np.ndarray) -> str:
    rows = []
    totals = matrix.sum(1)
    for row, name in enumerate(names):
        cells: list[str | Cell] = [text_of(name)]
        for column, count in enumerate(matrix[row].tolist()):
            part = count / totals[row] if totals[row] else 0.0
            color = (59, 110, 168) if row == column else (192, 57, 43)
            style = f"background:rgba({color[0]},{color[1]},{color[2]},{0.75 * part:.2f})" if count else ""
            title = f"{name} taken for {names[column]}: {count:,}, {100 * part:.0f}%"
            cells.append(Cell(f"{count:,}" if count else "", f'class="cell" style="{style}" title="{text_of(title)}"'))
        rows.append(cells)
    return table(["", *(name if len(name) <= 14 else name[:13] + "…" for name in names)], rows)


def _pairs(analysis: ErrorAnalysis) -> list[list[str]]:
    count = len(analysis.classes)
    between = analysis.confusion[:count, :count] * (1 - np.eye(count, dtype=np.int64))
    order = np.argsort(-between, axis=None, kind="stable")[:MOST_PAIRS]
    places = [np.unravel_index(place, between.shape) for place in order]
    return [
        [text_of(analysis.classes[row].name), text_of(analysis.classes[column].name), f"{between[row, column]:,}"]
        for row, column in places
        if between[row, column]
    ]
