"""Reads the label files of YOLO's form: a class and a box, or a polygon, in each line."""

from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.field_values import comma_hint, read_number, shown, whole_number
from kfpn.data.opening_warnings import warn_of_data
from kfpn.data.text_files import lines_of, read_text

OVERSHOOT = 0.01
"""A share may lie this far outside of 0..1: some tools round, or let a box reach over the border. It is clipped, and counted."""
BEYOND = f"labels with a share up to {OVERSHOOT:g} outside of 0..1, clipped"
POLYGONS = "polygons, read as the boxes around them"
OUTLINES = "polygons, read as masks and the boxes around them"
FOUR_CORNERS = "objects of four corners (turned boxes or polygons), read as the upright boxes around them"
KEYPOINTS = "boxes with keypoints, which are not read"
MAYBE_KEYPOINTS = "polygons that may be boxes with keypoints (all have as many numbers, and fit both): for keypoints write kpt_shape into the yaml"
REPEATED = "label lines that are there twice in a file, left out"

_BOX, _LEAST_POLYGON, _CORNERS = 4, 6, 8
"""Numbers behind the class."""
_PATTERN = 4  # fewer lines than this are no pattern
_SURE = 20
_GROW_TOGETHER = 0.8
"""Correlation: sizes of boxes hardly depend on where they lie, but the second corner of small ones is near the first."""


@dataclass
class LabelTable:
    """Collects the objects of label files.

    Args:
        classes: int, the number of classes.
        keypoints: int, numbers of the keypoints behind a box.
        yaml: the file that names the classes, for messages.

    Attributes:
        images: the image of each object.
        labels: the class of each object.
        boxes: y1, x1, y2, x2 of each object, shares of the image's sides.
        areas: of each object's polygon, a share of the image's area; 0 for a box.
        lines: the number of each object's line in its file.
        plain: whether each object is a box, given by centre and size.
        polygons: of each object (n, 2) x, y, shares of the sides; None for a box, and for points that are no numbers.
    """

    classes: int
    keypoints: int
    yaml: str
    images: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    plain: list[bool] = field(default_factory=list)
    polygons: list[np.ndarray | None] = field(default_factory=list)
    _lengths: set[int] = field(default_factory=set)
    _as_pose: int = 0
    _polygons: int = 0
    _first: str = ""

    def read(self, image: int, path: str, faults: AnnotationFaults) -> None:
        """Adds the objects of a file.

        Args:
            image: index of the file's image.
            path: of the file.
            faults: counts what was read otherwise than it is written.

        Raises:
            ValueError: when it can't be read or a line is no label; names the file and the line.
        """
        seen: set[tuple[object, ...]] = set()
        for number, line in enumerate(lines_of(read_text(path)), 1):
            words = line.split()
            if not words:
                continue
            where = f"{path}, line {number}"
            if len(words) == _BOX:  # before the class, which is what is missing
                _refuse_length(words[1:], where)
            label = self._label(words, where)
            values = self._values(words[1:], where)
            key = (label, *values, *words[1 + len(values) :])
            if key in seen:
                faults.add(REPEATED, where)
                continue
            seen.add(key)
            if any(not 0.0 <= value <= 1.0 for value in values):
                values = _clipped(values, where, faults)
            if len(values) == _BOX:
                self._add_box(values)
            else:
                self._add_polygon(values, where)
            self.images.append(image)
            self.labels.append(label)
            self.lines.append(number)
            if len(words) == 1 + _BOX + self.keypoints and self.keypoints:
                faults.add(KEYPOINTS, where)

    def report_polygons(self, faults: AnnotationFaults, *, masks: bool = False) -> None:
        """Counts the polygons, by what they may be, and whether their masks are kept."""
        if not self._polygons:
            return
        kind = OUTLINES if masks else POLYGONS
        if self._lengths == {_CORNERS} and not masks:
            kind = FOUR_CORNERS
        elif self._as_pose == len(self.boxes) >= _PATTERN and len(self._lengths) == 1 and min(self._lengths) > _CORNERS:
            kind = MAYBE_KEYPOINTS
        faults.add(kind, self._first, self._polygons)

    def _label(self, words: list[str], where: str) -> int:
        label = whole_number(words[0])
        if label is None:
            hint = ""
            if "," in words[0] or ";" in words[0]:
                hint = ": numbers are separated by spaces"
            elif read_number(words[0]) is None:
                hint = f": write its number in {self.yaml}"
            raise ValueError(f"{where}: class must be a whole number, got {shown(words[0], 40)}{hint}")
        if not 0 <= label < self.classes:
            from_one = label == self.classes and 0 not in self.labels
            what_to_do = (
                "classes count from 0, and no 0 came before, so these look counted from 1: subtract 1 from each"
                if from_one
                else "correct it, or add the name there"
            )
            raise ValueError(
                f"{where}: class must lie in 0..{self.classes - 1}, the classes of {self.yaml}, got {label}: {what_to_do}"
            )
        return label

    def _values(self, words: list[str], where: str) -> list[float]:
        count = len(words)
        if count == _BOX + self.keypoints:
            words = words[:_BOX]
        elif count != _BOX and (count < _LEAST_POLYGON or count % 2):
            _refuse_length(words, where)
        try:  # nearly all lines are plain: float() reads them quickly, but takes 1_0 and digits of other scripts too
            if "_" not in (text := "".join(words)) and text.isascii():
                return [float(word) for word in words]
        except ValueError:
            pass
        numbers = [read_number(word) for word in words]
        for word, number in zip(words, numbers, strict=True):
            if number is None:
                raise ValueError(f"{where}: must be numbers behind the class, got {shown(word, 40)}{comma_hint(word)}")
        return [number for number in numbers if number is not None]

    def _add_box(self, values: list[float]) -> None:
        x, y, width, height = values
        self.boxes.append((y - height / 2, x - width / 2, y + height / 2, x + width / 2))
        self.areas.append(0.0)
        self.plain.append(True)
        self.polygons.append(None)

    def _add_polygon(self, values: list[float], where: str) -> None:
        points = np.asarray(values, np.float64).reshape(-1, 2)
        self.plain.append(False)
        self._first = self._first or where
        self._polygons += 1
        self._lengths.add(len(values))
        if not np.isfinite(points).all():  # it is left out with the other boxes that are not finite
            self.boxes.append((np.nan,) * 4)
            self.areas.append(0.0)
            self.polygons.append(None)
            return
        self.polygons.append(points)
        x, y = points.T
        self.boxes.append((y.min(), x.min(), y.max(), x.max()))
        self.areas.append(float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2))
        half = points[1] / 2 + OVERSHOOT
        inside = (np.abs(points[2:] - points[0]) <= half).all() and (
            np.abs(points[0] - 0.5) + points[1] / 2 < 0.5 + OVERSHOOT
        ).all()
        self._as_pose += bool(inside)


def require_centers(name: str, table: LabelTable) -> None:
    """Refuses boxes (x, y, width, height) that are really (x1, y1, x2, y2).

    Args:
        name: what messages call the data set.
        table: its `plain` objects were given by centre and size.

    Raises:
        ValueError: when all boxes of at least four are corners of a box, and as centre and size most leave their image by more
            than a tenth of a side; or when of at least 20 boxes sizes grow with the centres, as the second corner does with
            the first. Of fewer, the latter is a warning.
    """
    boxes = np.asarray(table.boxes, np.float64).reshape(-1, 4)[np.asarray(table.plain, bool)]
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    if len(boxes) < _PATTERN:
        return
    first, second = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    leaves = ((boxes < -0.1) | (boxes > 1.1)).any(axis=1)
    if not (second > first).all():
        return
    if leaves.mean() > 0.5:
        raise ValueError(
            f"{name}: labels must be class, x and y of the centre, width, height, got {len(boxes)} boxes that look like x1, y1, x2, y2: "
            f"{int(leaves.sum())} of them leave their image, and in all of them the third number is larger than the first and "
            "the fourth than the second"
        )
    columns = zip(first.T, second.T, strict=True)
    vary = (np.minimum(first.std(axis=0), second.std(axis=0)) > 0).all()
    if vary and all(np.corrcoef(pair)[0, 1] > _GROW_TOGETHER for pair in columns):
        said = (
            f"{name}: labels must be class, x and y of the centre, width, height, got {len(boxes)} boxes that look like x1, y1, x2, y2: "
            "the third number is a little larger than the first, and the fourth than the second, in all of them"
        )
        if len(boxes) >= _SURE:
            raise ValueError(said)
        warn_of_data(said)


def _refuse_length(words: list[str], where: str) -> NoReturn:
    count = len(words) + 1
    rule = "must be class, x, y, width and height, or class and the points of a polygon"
    if count == _BOX:
        why = "is the class missing?"
    elif count == _BOX + 2:
        why = "the sixth looks like a score or a track: labels have none"
    elif count > _BOX + 2:
        why = "a polygon has pairs x, y; keypoints? then write kpt_shape into the yaml"
    else:
        why = "the line is not whole"
    raise ValueError(f"{where}: {rule}, got {count} value{'s' if count > 1 else ''}: {why}")


def _clipped(values: list[float], where: str, faults: AnnotationFaults) -> list[float]:
    """Returns shares within 0..1; NaN and infinity stay, they are left out with the other boxes that are not finite."""
    if not np.isfinite(values).all():
        return values
    far = [value for value in values if not -OVERSHOOT <= value <= 1.0 + OVERSHOOT]
    if far:
        pixels = ": divide x and widths by the image's width, y and heights by its height" if max(far) > 1.5 else ""
        raise ValueError(f"{where}: must be shares of the image's sides, 0..1, got {far[0]:g}{pixels}")
    faults.add(BEYOND, where)
    return [min(1.0, max(0.0, value)) for value in values]
