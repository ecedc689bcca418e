"""The inputs of ../shared/cases that are about annotations, opened: each must answer what its README calls right."""

import re

import pytest

from kfpn.data.class_names import lacking_classes, with_classes_of
from kfpn.data.formats import open_source
from kfpn.data.formats.coco import CocoSource
from kfpn.data.formats.voc import VocSource

PETS = ("cat", "dog")
ELSEWHERE, SPELT = "found by their last part: 4", "spelt otherwise on this machine"

OPEN = [  # folder, classes, boxes, crowd, what a warning says ("": there is none)
    ("00-good", PETS, 8, 0, ""),
    ("01-roboflow-group-has-class-name/same-name", ("fish",), 8, 0, "only group others .* left out: 1 .*'fish', id 0"),
    ("01-roboflow-group-has-class-name/group-unused", PETS, 8, 0, "only group others .* left out: 1 .*'pets', id 0"),
    ("02-iscrowd-text/zero", PETS, 8, 0, ""),
    ("02-iscrowd-text/false", PETS, 8, 0, ""),
    ("11-file-names-of-another-machine/backslash", PETS, 8, 0, ELSEWHERE),
    ("11-file-names-of-another-machine/ls-prefix", PETS, 8, 0, ELSEWHERE),
    ("11-file-names-of-another-machine/ls-win-up", PETS, 8, 0, ELSEWHERE),
    ("11-file-names-of-another-machine/abs-colab", PETS, 8, 0, ELSEWHERE),
    ("11-file-names-of-another-machine/abs-win", PETS, 8, 0, ELSEWHERE),
    ("11-file-names-of-another-machine/url-name", PETS, 8, 0, ELSEWHERE),
    ("11-file-names-of-another-machine/case-ext", PETS, 8, 0, SPELT),
    ("11-file-names-of-another-machine/percent", PETS, 8, 0, SPELT),
    ("11-file-names-of-another-machine/nfd", PETS, 8, 0, SPELT),
    ("19-ids-as-text-or-float/cat-float", PETS, 8, 0, ""),
    ("19-ids-as-text-or-float/imgid-str", PETS, 8, 0, ""),
    ("19-ids-as-text-or-float/imgid-mixed", PETS, 8, 0, ""),
    ("19-ids-as-text-or-float/imgid-annstr", PETS, 8, 0, ""),
    ("19-ids-as-text-or-float/catid-as-name", PETS, 8, 0, ""),
    ("19-ids-as-text-or-float/catname-int", ("0", "1"), 8, 0, ""),
    ("20-ignore-key", PETS, 8, 8, "ignore 1, taken as crowd: 8"),
]


def opened(folder, name="a.json"):
    return CocoSource(folder / name, folder / "images")


@pytest.mark.parametrize(
    ("case", "classes", "boxes", "crowd", "said"), OPEN, ids=[row[0].partition("/")[2] or row[0] for row in OPEN]
)
def test_coco_opens_with_the_right_records_and_one_line(shared, caplog, case, classes, boxes, crowd, said):
    source = opened(shared(f"cases/{case}"))
    assert source.class_names == classes
    assert sum(len(record.boxes) for record in source) == boxes
    assert sum(record.crowd.sum() for record in source) == crowd
    good = opened(shared("cases/00-good"))
    assert [record.boxes.tolist() for record in source] == [record.boxes.tolist() for record in good]
    assert len(caplog.messages) == bool(said)
    assert re.search(said, "".join(caplog.messages))


def test_another_ending_is_refused_with_the_file_that_is_there(shared):
    with pytest.raises(
        ValueError, match=r"4 of 4 images do not exist:\n.*im0\.png \(im0\.jpg is there\)(.|\n)*\nCorrect file_name"
    ):
        opened(shared("cases/11-file-names-of-another-machine/ext-other"))


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [("gb2312", ("狗", "猫")), ("gbk", ("狗", "猫")), ("sjis", ("イヌ", "ネコ")), ("utf8nohyphen", ("狗", "猫"))],
)
def test_voc_is_read_by_the_codec_of_its_first_line(shared, encoding, classes):
    source = open_source(f"voc:{shared('cases/10-voc-xml-encodings')}/{encoding}")
    assert source.class_names == classes
    assert source[0].boxes.tolist() == [[11, 35, 32, 62], [0, 5, 14, 25]]


def test_voc_takes_the_image_that_filename_says(shared):
    source = VocSource(shared("cases/06-voc-two-files-one-stem"))
    assert [record.image[-7:] for record in source] == ["im0.jpg", "im1.jpg", "im2.jpg"]


def test_voc_passes_over_the_files_that_macos_adds(shared, caplog):
    source = VocSource(shared("cases/12-macos-appledouble"))
    assert [record.image[-7:] for record in source] == ["im0.jpg", "im1.jpg", "im2.jpg"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [("val.json", [0, 1], ""), ("val_ids.json", [0, 1], ""), ("val_lacks.json", [0], "not measured: 'dog'"), ("val_more.json", [0, 1], "without a box, left out: 'bird'")],
)  # fmt: skip
def test_classes_of_validation_data_are_matched_by_name(shared, caplog, name, labels, said):
    folder = shared("cases/16-class-lists-differ")
    val = with_classes_of(opened(folder), opened(folder, name))
    assert val.class_names == PETS
    assert val[0].labels.tolist() == labels
    assert len(caplog.messages) == bool(said)
    assert said in "".join(caplog.messages)


def test_an_unused_class_hinders_no_evaluation(shared):
    source = opened(shared("cases/16-class-lists-differ"), "val_more.json")
    assert lacking_classes(source, PETS) == ([], ["bird"])


def test_classes_of_another_spelling_are_refused_with_a_hint(shared):
    folder = shared("cases/16-class-lists-differ")
    with pytest.raises(
        ValueError,
        match=r"got Cat, dog : .*differ only in case, spaces, hyphens or accents' form: 'Cat' and 'cat', 'dog ' and 'dog'$",
    ):
        with_classes_of(opened(folder), opened(folder, "val_case.json"))
