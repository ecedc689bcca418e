"""3,000 annotation files changed by chance: an error that names the file, or records that are right; never another error or a hang."""

import copy
import json
import random
import signal
import traceback

import pytest
from PIL import Image

from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.labelme import LabelmeSource
from kfpn.data.formats.voc import VocSource
from tests.data.formats.test_hostile import require_usable

SECONDS = 20
VALUES = (
    None, True, False, 0, 1, -1, 2, 7, 1.0, 1.5, -0.0, 1e308, -1e308, 10**400, 2**63, -(2**63), float("nan"), float("inf"),
    "", " ", "0", "1", "1.0", "2", "01", "true", "False", "yes", "maybe", "NaN", "12.5", "12,5", "1_0", "٣", "0x9", "1e999",
    "cat", "dog", "Cat", "none", "a.png", "A.PNG", "b.png", "a.jpg", "im%200.png", "../a.png", "/", "C:\\x\\a.png", "sub\\a.png",
    "http://h/a.png", "/data/local-files/?d=a.png", "._a.png", "..", ".", "a\0b", "\ud800", "e\u0301.png", "\u00e9.png", "x" * 300,
    [], [[]], {}, [1], [1, 2, 3, 4], ["1", "2", "3", "4"], [[1, 2], [3, 4]], {"id": 1}, [None] * 4, [True] * 4, [0.5, "1", 2, 3],
)  # fmt: skip
FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "difficult", "file_name", "height", "width", "name",
          "supercategory", "segmentation", "images", "annotations", "categories")  # fmt: skip
CODECS = (
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-be",
    "gb18030",
    "shift_jis",
    "cp1251",
    "latin-1",
)
DECLARED = (
    "",
    "utf-8",
    "utf8",
    "UTF-16",
    "GBK",
    "gb2312",
    "Shift_JIS",
    "cp1251",
    "utf-7",
    "idna",
    "base64",
    "klingon",
    "cp037",
    "big5",
)

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}, {"id": 2, "file_name": "b.png"}],
    "categories": [{"id": 1, "name": "cat", "supercategory": "pet"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "pet", "supercategory": "none"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 5], "area": 50, "iscrowd": 0, "ignore": 0},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0.5, 0, 29, 20], "iscrowd": "0", "segmentation": [[1, 2, 3]]},
    ],
}  # fmt: skip
LABELME = {"version": "5.5.0", "flags": {}, "imagePath": "a.png", "imageData": None, "imageHeight": 20, "imageWidth": 30, "shapes": [
    {"label": "cat", "points": [[1, 2], [11, 2], [11.5, 9]], "group_id": 1, "shape_type": "polygon", "flags": {}},
    {"label": "cat", "points": [[9, 9], [5, 4]], "group_id": 1, "shape_type": "rectangle", "difficult": False},
    {"label": "dog", "points": [[9, 9], [5, 4]], "group_id": None, "shape_type": "circle"},
    {"label": "dog", "points": [[3, 4], [4, 5]], "group_id": None, "shape_type": "mask", "mask": "iVBORw0KGgo="},
]}  # fmt: skip
XML = """<annotation><folder>f</folder><filename>a.png</filename><source><annotation>CVAT</annotation></source>
<size><width>30</width><height>20</height><depth>3</depth></size><object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>
<object><name>dog</name><truncated>1</truncated><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>10.5</xmax><ymax>12</ymax></bndbox></object></annotation>"""


def places(node, found):
    """Lists every container and key of a tree of lists and dicts."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        found.append((node, key))
        places(inner, found)
    return found


def change_tree(tree, chance):
    """Replaces, drops, doubles, renames, adds or moves a part of a tree."""
    holder, key = chance.choice(places(tree, []))
    kind = chance.choice(("value", "value", "value", "drop", "double", "rename", "add", "move"))
    if kind == "value":
        holder[key] = copy.deepcopy(chance.choice(VALUES))
    elif kind == "drop":
        del holder[key]
    elif kind == "double" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == "rename" and isinstance(holder, dict):
        holder[chance.choice(FIELDS)] = holder.pop(key)
    elif kind == "add" and isinstance(holder[key], dict):
        holder[key][chance.choice(FIELDS)] = copy.deepcopy(chance.choice(VALUES))
    elif kind == "move":
        other, place = chance.choice(places(tree, []))
        other[place] = copy.deepcopy(holder[key])


def change_bytes(content, chance):
    """Flips, drops, inserts, cuts, doubles or moves bytes."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        start = chance.randrange(len(content) + 1)
        end = min(len(content), start + chance.choice((1, 1, 2, 8, 60)))
        kind = chance.choice(("flip", "drop", "insert", "cut", "double", "mark"))
        if kind == "flip" and start < len(content):
            content[start] ^= 1 << chance.randrange(8)
        elif kind == "drop":
            del content[start:end]
        elif kind == "insert":
            content[start:start] = chance.choice(
                (b"\0", b"\xff", b'"', b"<", b"&", b">", b"[[[[", b"\xef\xbb\xbf", b"<!--", b"]]>", bytes(3))
            )
        elif kind == "cut":
            del content[chance.choice((start, len(content) // 2)) :]
        elif kind == "double":
            content[end:end] = content[start:end]
        else:
            content[:0] = chance.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\n", b" "))
    return bytes(content)


def mutated_json(chance, tree=COCO):
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        if places(tree, []):
            change_tree(tree, chance)
    text = json.dumps(tree, ensure_ascii=chance.random() < 0.5)
    content = text.encode(chance.choice(CODECS) if chance.random() < 0.2 else "utf-8", "replace")
    return change_bytes(content, chance) if chance.random() < 0.25 else content


def mutated_xml(chance):
    text = XML
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        parts = text.split("<")
        at = chance.randrange(len(parts))
        tag, closing, _ = parts[at].partition(">")
        kind = chance.choice(("text", "text", "text", "tag", "drop", "double", "entity"))
        if kind == "text" and closing:
            parts[at] = f"{tag}>{chance.choice(VALUES)}"
        elif kind == "tag" and closing:
            parts[at] = (
                f"{chance.choice(('name', 'bndbox', 'object', '/object', 'xmin', 'size', 'x y', '!DOCTYPE a [', '?xml', '![CDATA['))}>"
            )
        elif kind == "drop":
            del parts[at]
        elif kind == "double":
            parts.insert(at, parts[at])
        elif kind == "entity" and closing:
            parts[at] = f"{tag}>{chance.choice(('&amp;', '&lol;', '&#0;', '&#x110000;', '&#233;', '&'))}"
        text = "<".join(parts)
    declared = chance.choice(DECLARED) if chance.random() < 0.5 else ""
    text = f"<?xml version='1.0' encoding='{declared}'?>\n{text}" if declared else text
    content = text.encode(chance.choice(CODECS) if chance.random() < 0.2 else "utf-8", "replace")
    return change_bytes(content, chance) if chance.random() < 0.25 else content


def mutated_list(chance):
    lines = chance.choice((["a", "b"], ["a 1", "b -1"], ["a.png", "b.xml"], ["JPEGImages\\a.png", "b"], ["._a", "a"]))
    content = chance.choice(("\n", "\r\n", "\r")).join(lines).encode(chance.choice(CODECS))
    return change_bytes(content, chance) if chance.random() < 0.5 else content


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("mutated")
    for folder in ("coco/images", "voc/JPEGImages", "voc/Annotations", "voc/ImageSets/Main", "labelme"):
        (root / folder).mkdir(parents=True)
    for name in (
        "coco/images/a.png",
        "coco/images/b.png",
        "voc/JPEGImages/a.png",
        "voc/JPEGImages/b.png",
        "labelme/a.png",
        "labelme/b.png",
    ):
        Image.new("RGB", (30, 20)).save(root / name)
    return root


def open_coco(root, chance):
    (root / "coco" / "a.json").write_bytes(mutated_json(chance))
    return CocoSource(root / "coco" / "a.json", root / "coco" / "images")


def open_voc(root, chance):
    voc = root / "voc"
    (voc / "Annotations" / "a.xml").write_bytes(mutated_xml(chance))
    (voc / "Annotations" / "b.xml").write_text(XML.replace("a.png", "b.png"))
    (voc / "ImageSets" / "Main" / "train.txt").write_bytes(mutated_list(chance) if chance.random() < 0.3 else b"a\nb\n")
    return VocSource(voc)


def open_labelme(root, chance):
    labelme = root / "labelme"
    (labelme / "a.json").write_bytes(mutated_json(chance, LABELME))
    (labelme / "b.json").write_text(json.dumps(LABELME | {"imagePath": "b.png"}))
    return LabelmeSource(labelme, masks=True)


def outcome(root, make, seed):
    """Opens one changed file and returns "right" or "refused"; fails for everything else."""

    def too_long(*_):
        raise TimeoutError(f"seed {seed}: more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    refused = None
    try:
        require_usable(make(root, random.Random(seed)))
    except Exception as error:
        refused = error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if refused is None:
        return "right"
    trace = "".join(traceback.format_exception(refused))
    assert type(refused) is ValueError, f"seed {seed}: {trace}"
    assert str(root) in str(refused), f"seed {seed}: {trace}"
    assert len(str(refused)) < 3000, f"seed {seed}: {trace}"
    return "refused"


def dressed(value, chance):
    """Writes a number as another tool would."""
    return chance.choice((value, float(value), str(value), f" {float(value)} "))


def name_elsewhere(name, chance):
    """Writes a file's name as another machine would."""
    return chance.choice(("{}", "./{}", "C:\\x\\{}", "..\\x\\{}", "/content/{}", "http://h:8080/d/{}?s=1", "images/1/{}", "/data/local-files/?d=x%2F{}")).format(
        chance.choice((name, name, name.upper(), name.replace("a", "%61")))
    )  # fmt: skip


def same_in_other_dress(chance):
    """Returns COCO's annotations as bytes that mean the same."""
    tree = copy.deepcopy(COCO)
    for row in (*tree["images"], *tree["categories"]):
        row["id"] = dressed(row["id"], chance)
    for image in tree["images"]:
        image["file_name"] = name_elsewhere(image["file_name"], chance)
    names = {row["name"]: int(float(row["id"])) for row in tree["categories"]}
    for row in tree["annotations"]:
        row["image_id"] = dressed(row["image_id"], chance)
        row["category_id"] = chance.choice(
            (dressed(row["category_id"], chance), next(n for n, i in names.items() if i == row["category_id"]))
        )
        row["bbox"] = [dressed(value, chance) for value in row["bbox"]]
        row["iscrowd"] = chance.choice((0, 0.0, False, "0", "False", "false", None))
        row["ignore"] = chance.choice((0, "0", False))
    chance.shuffle(tree["categories"])
    return json.dumps(tree, ensure_ascii=False).encode(
        chance.choice(("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"))
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_same_annotations_in_another_dress_are_the_same_records(folders, seed):
    path, images = folders / "coco" / "a.json", folders / "coco" / "images"
    path.write_text(json.dumps(COCO))
    wanted = CocoSource(path, images)
    path.write_bytes(same_in_other_dress(random.Random(seed)))
    source = CocoSource(path, images)
    assert source.class_names == wanted.class_names == ("cat", "dog")
    for record, other in zip(source, wanted, strict=True):
        assert (record.image, record.image_id) == (other.image, other.image_id)
        assert (record.boxes.tolist(), record.labels.tolist(), record.crowd.tolist()) == (
            other.boxes.tolist(), other.labels.tolist(), other.crowd.tolist(),
        )  # fmt: skip


def run(root, seeds):
    counts = {}
    for make in (open_coco, open_voc, open_labelme):
        for seed in seeds:
            key = make.__name__, outcome(root, make, seed)
            counts[key] = counts.get(key, 0) + 1
    return counts


def test_some_changed_files_are_refused_by_name_or_read_rightly(folders):
    counts = run(folders, range(60))
    assert len(counts) == 6  # both kinds of answer occur for each form


@pytest.mark.slow
def test_three_thousand_changed_files_are_refused_by_name_or_read_rightly(folders):
    counts = run(folders, range(1000, 2000))
    print(counts)
    assert sum(counts.values()) == 3000
