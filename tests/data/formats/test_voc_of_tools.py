"""VOC folders as tools and people leave them: two images of one name, lists, flags, fractions, encodings, other layouts."""

import shutil

import pytest
from PIL import Image

from kfpn.data.formats import open_source
from kfpn.data.formats.voc import VocSource, split_names
from tests.data.formats.test_voc import xml


def voc(root, annotations, split=None, images=None):
    """Writes a VOC folder: stem -> text of the XML file; a list of lines; the names of the images."""
    for part in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for stem, text in annotations.items():
        file = root / "Annotations" / f"{stem}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for name in images or [f"{stem}.png" for stem in annotations]:
        file = root / "JPEGImages" / name
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(file)
    lines = list(annotations) if split is None else split
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(lines))
    return root


def named(file_name, *objects):
    text = xml(*(objects or (("dog", 0, 1, 1, 30, 20),)))
    return text.replace("<annotation>", f"<annotation><filename>{file_name}</filename>")


def images(source):
    return [record.image.rpartition("JPEGImages/")[2] for record in source]


@pytest.mark.parametrize("file_name", ["a.png", "A.PNG", r"C:\x\a.png", "/home/me/JPEGImages/a.png", "a%2Epng"])
def test_filename_decides_between_two_images_of_one_name(tmp_path, file_name):
    voc(tmp_path, {"a": named(file_name)}, images=["a.png", "a.jpg", "a.bmp"])
    assert images(VocSource(tmp_path)) == ["a.png"]


@pytest.mark.parametrize("file_name", ["", "a", "a.tif", "other.png"])
def test_two_images_of_one_name_are_refused_with_both_where_filename_does_not_decide(tmp_path, file_name):
    voc(tmp_path, {"a": named(file_name)}, images=["a.png", "a.jpg"])
    with pytest.raises(
        ValueError, match=r"a\.xml: <filename> must say which image is annotated, .*two fit: .*a\.jpg and .*a\.png"
    ):
        VocSource(tmp_path)


def test_filename_may_be_of_another_name_where_only_that_is_there(tmp_path, caplog):
    voc(tmp_path, {"a": named("photo.png")}, images=["photo.png", "b.png"])
    assert images(VocSource(tmp_path)) == ["photo.png"]
    assert "annotations whose <filename> is an image of another name, taken: 1" in caplog.text


def test_filename_and_the_annotations_own_image_are_refused_with_both(tmp_path):
    voc(tmp_path, {"a": named("b.png")}, images=["a.png", "b.png"])
    with pytest.raises(
        ValueError, match=r"got 'b\.png', and both are there: .*a\.png and .*b\.png: correct <filename>"
    ):
        VocSource(tmp_path)


def test_a_filename_that_is_not_there_is_said(tmp_path, caplog):
    voc(tmp_path, {"a": named("before.jpg"), "b": named("b"), "c": named("c.png")})
    assert images(VocSource(tmp_path)) == ["a.png", "b.png", "c.png"]
    assert [message.partition("train: ")[2].partition(" (first")[0] for message in caplog.messages] == [
        "annotations whose <filename> is not there, so the one image of the annotation's name is taken: 1"
    ]


def test_masks_in_a_folder_below_are_not_taken(tmp_path):
    voc(tmp_path, {"a": xml(("dog", 0, 1, 1, 30, 20))}, images=["a.png", "masks/a.png", "masks/a.jpg"])
    assert images(VocSource(tmp_path)) == ["a.png"]


@pytest.mark.parametrize(
    ("stems", "lines", "wanted"),
    [
        (["scan 1", "scan 0"], ["scan 1", "scan 0"], ["scan 1", "scan 0"]),
        (["scan", "scan 1", "scan 2"], ["scan", "scan 1", "scan 2"], ["scan", "scan 1", "scan 2"]),
        (["scan", "b"], ["scan 1", "b -1"], ["scan", "b"]),
        (["scan", "b"], ["scan  0", "b\t1"], ["scan", "b"]),
        (["scan 1", "b"], ["scan 1 1", "b -1"], ["scan 1", "b"]),
        (["a", "b"], ["a.png", "b.xml"], ["a", "b"]),
        (["a", "b"], ["JPEGImages/a.png", r"C:\VOC\JPEGImages\b.png"], ["a", "b"]),
        (["a", "b"], ["A", "b"], ["a", "b"]),
        (["a", "b"], ["a", "._b", ".DS_Store"], ["a"]),
        (["sub/a", "b"], ["sub/a", "b"], ["sub/a", "b"]),
        (["v1.5", "v1.6"], ["v1.5", "v1.6"], ["v1.5", "v1.6"]),
    ],
)
def test_a_line_is_a_name_where_such_an_annotation_exists(tmp_path, stems, lines, wanted):
    voc(tmp_path, {stem: xml(("dog", 0, 1, 1, 30, 20)) for stem in stems}, lines)
    assert images(VocSource(tmp_path)) == [f"{stem}.png" for stem in wanted]


def test_a_line_that_fits_two_annotations_is_refused_with_both(tmp_path):
    voc(tmp_path, {"scan": xml(("dog", 0, 1, 1, 30, 20)), "scan 1": xml(("dog", 0, 1, 1, 30, 20))}, ["scan 1"])
    with pytest.raises(
        ValueError,
        match=r"line 'scan 1' of .*train\.txt must name one annotation, got scan and scan 1, which are both there",
    ):
        VocSource(tmp_path)


@pytest.mark.parametrize(
    ("codec", "newline"),
    [("utf-8", "\r\n"), ("utf-8-sig", "\n"), ("utf-16", "\r\n"), ("utf-16-le", "\n"), ("utf-8", "\r")],
)
def test_lists_of_other_machines_are_read(tmp_path, codec, newline):
    voc(tmp_path, {"é": xml(("dog", 0, 1, 1, 30, 20)), "b": xml()})
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(newline.join(["b", "e\u0301", ""]).encode(codec))
    assert images(VocSource(tmp_path)) == ["b.png", "é.png"]


@pytest.mark.parametrize(
    ("text", "crowd"),
    [("1", True), ("True", True), ("yes", True), ("1.0", True), ("0", False), ("false", False), ("No", False), ("", False), ("Unspecified", False)],
)  # fmt: skip
@pytest.mark.parametrize("flag", ["difficult", "ignore", "iscrowd"])
def test_flags_in_any_dress(tmp_path, caplog, flag, text, crowd):
    content = xml(("dog", 0, 1, 1, 30, 20)).replace("<difficult>0</difficult>", f"<{flag}>{text}</{flag}>")
    source = VocSource(voc(tmp_path, {"a": content}))
    assert source[0].crowd.tolist() == [crowd]
    assert [f"objects with {flag} 1, taken as crowd: 1" in message for message in caplog.messages] == [True] * (
        crowd and flag != "difficult"
    )


@pytest.mark.parametrize("text", ["2", "maybe", "-1", "nan", "0 1"])
def test_what_is_no_flag_is_refused_with_the_file(tmp_path, text):
    voc(tmp_path, {"a": xml(("dog", text, 1, 1, 30, 20))})
    with pytest.raises(ValueError, match=rf"a\.xml: object 'dog': difficult must be 0, 1, true or false, got '{text}'"):
        VocSource(tmp_path)


def test_flags_that_are_not_looked_at_may_be_anything(tmp_path):
    content = xml(("dog", 0, 1, 1, 30, 20)).replace(
        "<bndbox>", "<truncated>Left</truncated><occluded>?</occluded><pose/><bndbox>"
    )
    assert len(VocSource(voc(tmp_path, {"a": content}))[0].boxes) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12,5", "must be a number, got '12,5': write a point for the decimal comma"),
        ("1_0", "must be a number, got '1_0'"),
        ("true", "must be a number"),
    ],
)
def test_corners_that_are_no_numbers_are_refused_with_the_file(tmp_path, text, message):
    voc(tmp_path, {"a": xml(("dog", 0, 1, 1, text, 20))})
    with pytest.raises(ValueError, match=rf"a\.xml: xmax {message}"):
        VocSource(tmp_path)


def test_corners_with_fractions_count_from_0(tmp_path, caplog):
    voc(tmp_path, {"a": xml(("dog", 0, 0.0, 1.5, 12.25, 20.0)), "b": xml(("dog", 0, 3.0, 4.0, 5.0, 6.0))}, ["a"])
    assert VocSource(tmp_path)[0].boxes.tolist() == [[1.5, 0, 20, 12.25]]
    assert (
        "corners with fractions, read as distances from the image's corner (0-based, as CVAT writes them): 1 (first:"
        in caplog.text
    )
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b")
    assert VocSource(tmp_path, "val")[0].boxes.tolist() == [[4, 3, 6, 5]]  # the rule is that of the whole folder


def test_a_few_fractions_among_whole_pixels_are_vocs_own(tmp_path, caplog):
    voc(tmp_path, {"a": xml(("dog", 0, 3, 4, 12, 20), ("dog", 0, 3.5, 4, 12, 20)), "b": xml(("dog", 0, 1, 1, 5, 5))})
    assert VocSource(tmp_path)[0].boxes.tolist() == [[3, 2, 20, 12], [3, 2.5, 20, 12]]
    assert caplog.messages == []


def test_the_boxes_of_parts_decide_nothing(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>12.5</xmin><ymin>12.5</ymin><xmax>20.5</xmax><ymax>20.5</ymax></bndbox></part>"
    text = xml(("dog", 0, 11, 11, 20, 18)).replace("</object>", f"{part}{part}</object>")
    assert VocSource(voc(tmp_path, {"a": text}))[0].boxes.tolist() == [[10, 10, 18, 20]]


def test_whole_numbers_with_a_point_count_from_1_unless_the_file_names_the_tool(tmp_path):
    text = xml(("dog", 0, 3.0, 4.0, 12.0, 20.0))
    assert VocSource(voc(tmp_path, {"a": text}))[0].boxes.tolist() == [[3, 2, 20, 12]]
    text = text.replace(
        "<annotation>", "<annotation><source><database>Unknown</database><annotation>CVAT</annotation></source>"
    )
    assert VocSource(voc(tmp_path, {"a": text}))[0].boxes.tolist() == [[4, 3, 20, 12]]


def test_hidden_files_are_passed_over(tmp_path):
    voc(tmp_path, {"a": xml(("dog", 0, 1, 1, 30, 20))})
    for name in ("Annotations/._a.xml", "Annotations/.DS_Store", "JPEGImages/._a.png", "ImageSets/Main/._train.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7Mac OS X")
    assert images(VocSource(tmp_path)) == ["a.png"]
    assert split_names(tmp_path) == ["train"]


def test_the_codec_of_the_first_line_is_the_files(tmp_path):
    text = "<?xml version='1.0' encoding='{}'?>\n" + xml(("猫", 0, 1, 1, 30, 20))
    voc(tmp_path, {codec: text.format(codec).encode(codec) for codec in ("gbk", "shift_jis", "utf-16", "utf-8")})
    assert VocSource(tmp_path).class_names == ("猫",)


def test_bytes_of_another_codec_are_refused_with_the_file(tmp_path):
    voc(tmp_path, {"a": xml(("狗", 0, 1, 1, 30, 20)).encode("gbk")})
    with pytest.raises(
        ValueError, match=r"a\.xml: can't be read: is not text in utf-8 .*: name its encoding in the first line"
    ):
        VocSource(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["<a>" * 50_000 + "</a>" * 50_000, " " * 500_000 + "<a/>", "<annotation><object><name>x</name>" + " " * 300_000 + "</object></annotation>",
     xml(("dog", 0, "9" * 200_000 + "x", 1, 3, 4)), xml(("dog", "0" * 200_000 + "x", 1, 1, 3, 4)), named("a/" * 100_000 + "\u0301" * 10_000, ("dog", 0, "x", 1, 3, 4))],
    ids=["deep", "spaces before", "spaces within", "digits", "flag", "filename"],
)  # fmt: skip
def test_long_xml_is_refused_at_once_in_a_short_line(tmp_path, content):
    voc(tmp_path, {"a": content})
    with pytest.raises(ValueError, match=f"{tmp_path}") as error:
        VocSource(tmp_path)
    assert len(str(error.value)) < 2000


def test_a_long_line_of_a_list_is_refused_at_once(tmp_path):
    voc(tmp_path, {"a": xml(("dog", 0, 1, 1, 3, 4))}, ["a" + " " * 200_000 + "b", "a" + "\u0301\u0323" * 50_000])
    with pytest.raises(ValueError, match=r"2 of 2 images do not exist") as error:
        VocSource(tmp_path)
    assert len(str(error.value)) < 2000


@pytest.fixture
def flat(tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for stem in ("a", "b 1"):
        (folder / f"{stem}.xml").write_text(xml(("dog", 0, 1, 1, 30, 20)))
        Image.new("RGB", (30, 20)).save(folder / f"{stem}.jpg")
    Image.new("RGB", (30, 20)).save(folder / "more.jpg")
    return folder


def test_xml_files_beside_their_images_are_one_split(flat, caplog):
    source = open_source(f"voc:{flat}", "validation")
    assert [record.image for record in source] == [str(flat / "a.jpg"), str(flat / "b 1.jpg")]
    assert "no ImageSets/Main there, so all annotations of the folder are read: 1" in caplog.text
    assert "images without an annotation, left out: 1" in caplog.text
    with pytest.raises(
        ValueError, match=r"split must be left out, got 'val': .* has no ImageSets/Main, so it is one split"
    ):
        open_source(f"voc:{flat},val")


def test_annotations_and_images_without_lists_are_one_split(tmp_path):
    voc(tmp_path, {"a": xml(("dog", 0, 1, 1, 30, 20))})
    shutil.rmtree(tmp_path / "ImageSets")
    (tmp_path / "JPEGImages").rename(tmp_path / "images")
    assert len(VocSource(tmp_path)) == 1


def test_folders_may_be_written_in_another_case(tmp_path):
    voc(tmp_path, {"a": xml(("dog", 0, 1, 1, 30, 20))})
    for before, after in (
        ("Annotations", "annotations"),
        ("JPEGImages", "JpegImages"),
        ("ImageSets/Main", "ImageSets/main"),
        ("ImageSets", "imagesets"),
    ):
        (tmp_path / before).rename(tmp_path / after)
    assert len(open_source(f"voc:{tmp_path},train")) == 1
    assert split_names(tmp_path) == ["train"]


def test_a_folder_of_flat_folders_names_them(flat):
    with pytest.raises(ValueError, match=rf"did you mean voc:{flat}\?"):
        VocSource(flat.parent)
