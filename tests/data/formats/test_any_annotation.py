"""Checks random annotations of all kinds but COCO's: a ValueError names the bad one, or the records are right."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kfpn.data.annotation_checks import AnnotationFaults
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.formats.tfds import TfdsSource
from kfpn.data.formats.voc import VocSource
from kfpn.data.record import Record
from tests.data.formats.test_hostile import require_usable
from tests.data.formats.test_voc import xml

NUMBERS = st.one_of(
    st.integers(-3, 40), st.floats(), st.sampled_from([2**63, -(2**63), 10**400, 1e308, -1e308, 1e-308])
)
TEXTS = st.one_of(
    st.none(), NUMBERS.map(str), st.text(max_size=4), st.sampled_from(["dog", "../x", " 7 ", "1_0", "0x9"])
)
TAGS = st.sampled_from(
    ["annotation", "size", "height", "width", "object", "name", "difficult", "bndbox", "xmin", "ymin", "xmax", "ymax"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voc")
    for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (30, 20)).save(folder / "JPEGImages" / f"{name}.png")
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    return folder


GOOD = xml(("dog", 0, 1, 1, 30, 20))


def opened(folder, text, other=GOOD):
    for name, content in (("a", text), ("b", other)):
        (folder / "Annotations" / f"{name}.xml").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
    return VocSource(folder)


def refused_or_usable(named, make, *args):
    """Asserts that `make` returns a source with usable records, or raises a ValueError that holds the text `named`."""
    try:
        source, message = make(*args), None
    except ValueError as error:
        message = str(error)
    if message is None:
        require_usable(source)
    else:
        assert named in message


@st.composite
def trees(draw):
    """Makes an annotation of two objects and a size, in which some elements are changed, added, dropped or moved."""
    root = ElementTree.fromstring(xml(("dog", 0, 1, 1, 30, 20), ("cat", 1, 5, 6, 10.5, 12)))
    for _ in range(draw(st.integers(1, 4))):
        parents = list(root.iter())
        parent = parents[draw(st.integers(0, len(parents) - 1))]
        kind = draw(st.sampled_from(["text", "tag", "new", "drop", "move"]))
        if kind == "text":
            parent.text = draw(TEXTS)
        elif kind == "tag":
            parent.tag = draw(TAGS)
        elif kind == "new":
            ElementTree.SubElement(parent, draw(TAGS)).text = draw(TEXTS)
        elif len(parent):
            child = parent[draw(st.integers(0, len(parent) - 1))]
            parent.remove(child)
            if kind == "move":
                root.append(child)
    return ElementTree.tostring(root, encoding="unicode").encode("utf-8", "replace")


@settings(max_examples=60, deadline=None)
@given(trees())
def test_any_tree_is_refused_with_the_file_or_read_rightly(folder, text):
    refused_or_usable(str(folder), opened, folder, text)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_bytes_are_refused_with_the_file_or_read_rightly(folder, data):
    text = bytearray(b"<?xml version='1.0' encoding='utf-8'?>" + GOOD.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        text[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    refused_or_usable(str(folder), opened, folder, bytes(text))


@pytest.mark.parametrize("encoding", ["klingon", "base64", "utf-7", "cp037", "idna"])
def test_an_encoding_that_cant_be_read_is_refused_with_the_file(folder, encoding):
    with pytest.raises(ValueError, match=r"a\.xml: can't be read: .*(encoding|codec)"):
        opened(folder, f"<?xml version='1.0' encoding='{encoding}'?>" + GOOD)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ant", "dog"]), st.integers(0, 1), *[st.integers(-3, 34)] * 4), max_size=8))
def test_random_objects_are_read_as_a_plain_reader_reads_them(folder, objects):
    expected = []
    for name, difficult, x0, y0, x1, y1 in objects:
        box = (max(y0 - 1, 0), max(x0 - 1, 0), min(y1, 20), min(x1, 30))
        # Corners that are one point are a click without a drag.
        if x1 >= x0 and y1 >= y0 and (x1, y1) != (x0, y0) and box[2] > box[0] and box[3] > box[1]:
            expected.append((*box, ["ant", "dog"].index(name), bool(difficult)))
    # The other image's boxes lie in it as corners alone, so no objects look like boxes in another form.
    record = opened(folder, xml(*objects), xml(("dog", 0, 11, 11, 30, 20), ("ant", 0, 16, 8, 30, 20)))[0]
    read = [(*box, label, crowd) for box, label, crowd in zip(record.boxes, record.labels, record.crowd, strict=True)]
    assert read == expected


ROWS = st.lists(st.tuples(*[NUMBERS] * 4, st.integers(-1, 3), st.booleans(), NUMBERS), max_size=4)
IDS = st.one_of(st.integers(0, 3), st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, -(2**63) - 1]))


def columns(rows):
    """Returns the boxes, labels, crowd flags and areas of the rows."""
    numbers = [[min(max(float_of(value), -np.inf), np.inf) for value in (*row[:4], row[6])] for row in rows]
    table = np.array(numbers, np.float64).reshape(-1, 5)
    return (
        table[:, :4],
        np.array([row[4] for row in rows], np.int64),
        np.array([row[5] for row in rows], bool),
        table[:, 4],
    )


def float_of(value):
    return float(value) if abs(value) < 1e308 or isinstance(value, float) else float("inf")


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, IDS, IDS)
def test_any_numbers_in_records_are_refused_with_the_record_or_read_rightly(first, second, one, two):
    pixels = np.zeros((20, 30, 3), np.uint8)
    records = [
        Record(pixels, number, 20, 30, *columns(rows), f"picture {index}")
        for index, (rows, number) in enumerate(((first, one), (second, two)))
    ]
    refused_or_usable("mine: ", IterableSource, records, ("ant", "dog"), None, "mine")


def png():
    stream = io.BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "PNG")
    return stream.getvalue()


class Given(TfdsSource):
    """Checks the examples that it is given as a data set of TFDS: nothing is prepared, and no cache is read."""

    def __init__(self, examples):
        self._examples = examples
        self._features = self._scanned = None
        self.sizes, self.image_ids, self.annotations = self._scan("tfds:given", 2, AnnotationFaults("tfds:given"))
        self._images = self._image_names = ["image"] * len(examples)
        self.class_names = ("ant", "dog")

    def _example(self, index, features=None):
        return self._examples[index]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("is_crowd", 2, "0 or 1"),
        ("is_difficult", -1, "0 or 1"),
        ("is_crowd", b"0", "0 or 1"),
        ("area", b"9", "numbers"),
    ],
)
def test_flags_and_numbers_of_no_kind_in_tfds_features_are_refused(field, value, rule):
    objects = {
        "bbox": np.zeros((1, 4)),
        "label": np.zeros(1),
        field: np.array([value], object if isinstance(value, bytes) else None),
    }
    with pytest.raises(ValueError, match=rf"tfds:given: objects/{field} must be {rule}, got \[{value}\]"):
        Given([{"image": png(), "image/id": 1, "objects": objects}])


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, IDS.filter(lambda number: number >= 0), IDS.filter(lambda number: number >= 0))
def test_any_numbers_in_tfds_features_are_refused_with_the_example_or_read_rightly(first, second, one, two):
    examples = []
    for rows, number in ((first, one), (second, two)):
        boxes, labels, crowd, areas = columns(rows)
        objects = {"bbox": boxes, "label": labels, "is_crowd": crowd, "area": areas}
        examples.append({"image": png(), "image/id": number, "objects": objects})
    refused_or_usable("tfds:given: labels must lie in 0..1", Given, examples)
