"""Tables of boxes: the headers of several tools, and each fault as one line that names the file and the line."""

import codecs

import pytest
from PIL import Image

from kfpn.data.formats import default_val_data, open_source
from kfpn.data.formats.csv_boxes import CsvSource

HEAD = "image,x1,y1,x2,y2,class\n"


def made(root, text, images=("a.png", "b.png")):
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(root / name)
    (root / "boxes.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root / "boxes.csv"


def content(source):
    """Returns (class, box) of each object, a list for each image."""
    return [
        [
            (source.class_names[label], *box)
            for label, box in zip(record.labels.tolist(), record.boxes.tolist(), strict=True)
        ]
        for record in (source[i] for i in range(len(source)))
    ]


A = [("cat", 2, 1, 12, 11)]
"""An object of a.png: x 1..11, y 2..12."""


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "a.png,1,2,11,12,cat\nb.png,,,,,\n",
        "a.png,1,2,11,12,cat\nb.png,,,,,\n",
        "./a.png,1,2,11,12,cat\n./b.png,,,,,\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,20,cat,1,2,11,12\nb.png,40,20,,,,,\n",
        "Filename;Class;X_Min;Y Min;x-max;YMAX\na.png;cat;1;2;11;12\nb.png;;;;;\n",
        "path\tlabel\tleft\ttop\tright\tbottom\na.png\tcat\t1\t2\t11\t12\nb.png\t\t\t\t\t\n",
        "sep=;\nimage;x1;y1;x2;y2;class\na.png;1;2;11;12;cat\nb.png;nan;nan;nan;nan;nan\n",
        '"image","x1","y1","x2","y2","class"\r\n"a.png","1.0","2","11","12","cat"\r\n"b.png","","","","",""\r\n',
        codecs.BOM_UTF8 + (HEAD + "a.png, 1, 2, 11, 12, cat\n\n b.png ,,,,,\n").encode(),
        (HEAD.replace(",", "\t") + "a.png\t1\t2\t11\t12\tcat\nb.png\t\t\t\t\t\n").encode("utf-16"),
        HEAD.replace("\n", ",score,id\n") + "a.png,1,2,11,12,cat,.5,7\nb.png,,,,,,,8\n",
    ],
)
def test_tables_of_several_tools_and_machines_are_read(tmp_path, text):
    source = CsvSource(made(tmp_path, text))
    assert content(source) == [A, []]
    assert source.category_ids == (1,)


def test_what_is_guessed_or_not_read_is_said(tmp_path, caplog):
    CsvSource(made(tmp_path, "a.png,1,2,11,12,cat\na.png,1,2,11,12,cat\n"))
    assert "no header there, so the columns are taken as image, x1, y1, x2, y2, class: 2" in caplog.text
    assert "rows that are there twice, left out: 1 (first: " in caplog.text
    assert "boxes.csv, line 2)" in caplog.text
    CsvSource(made(tmp_path, "image,x1,y1,x2,y2,class,score,id\na.png,1,2,11,12,cat,1,1\n"))
    assert "columns that are not read ('score', 'id'): 2" in caplog.text


def test_names_with_separators_and_quotes_are_read_in_quotes(tmp_path):
    text = HEAD + '"a,1.png",1,2,11,12,"cat, big ""one"""\n'
    assert content(CsvSource(made(tmp_path, text, ["a,1.png"]))) == [[('cat, big "one"', 2, 1, 12, 11)]]


def test_classes_are_sorted_and_numbers_by_their_value(tmp_path):
    rows = "a.png,1,2,11,12,{}\n"
    assert CsvSource(made(tmp_path, HEAD + "".join(rows.format(n) for n in "ba"))).class_names == ("a", "b")
    assert CsvSource(made(tmp_path, HEAD + "".join(rows.format(n) for n in (10, 9, 0)))).class_names == ("0", "9", "10")


def test_one_image_named_in_two_ways_is_one_image(tmp_path):
    text = HEAD + "a.png,1,2,11,12,cat\n./a.png,2,2,11,12,cat\nx/../a.png,3,2,11,12,cat\n"
    (tmp_path / "x").mkdir()
    assert [len(objects) for objects in content(CsvSource(made(tmp_path, text)))] == [3]


def test_images_are_found_beside_the_file_or_in_the_folder_that_is_named(tmp_path, caplog):
    file = made(tmp_path, HEAD + "C:\\data\\a.png,1,2,11,12,cat\n", ["pictures/a.png"])
    assert content(open_source(f"csv:{file},{tmp_path / 'pictures'}")) == [A]
    assert content(open_source(f"csv:{file}")) == [A]
    assert "found by their last part: 1" in caplog.text
    assert default_val_data(f"csv:{file}") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"boxes\.csv: must have a row for each box, got an empty file"),
        (HEAD, r"boxes\.csv: must have a row for each box, got a header alone"),
        (
            "image_id,bbox\na.png,1\n",
            r"boxes\.csv: must have columns that are understood, got the first line 'image_id,bbox': image,x1",
        ),
        ("a.png,cat,1,2,11,12\n", r"boxes\.csv: must have columns that are understood, got the first line"),
        ("a.png,1,2,11,12\n", "without a header only image,x1,y1,x2,y2,class"),
        ("a.png,1,2,11,12,cat\nb,1,2,11,12,cat\n", r"must have a header, or .* got another line 2: write a header"),
        ("a.png,20,2,11,12,cat\n", "must have a header, or image,x1,y1,x2,y2,class in every line"),
        (
            "image,path,x1,y1,x2,y2,class\na.png,a.png,1,2,11,12,cat\n",
            "must have one column for image, got image and path",
        ),
        (HEAD + "a.png,1,2,11,cat\n", r"line 2: must have 6 fields, got 5"),
        (
            HEAD + "\na.png,1,2,11,12,cat,dog\n",
            r"line 3: must have 6 fields, got 7: put text with the separator into quotes",
        ),
        (HEAD + "a.png,1,2,x,12,cat\n", r"line 2: box must be four numbers, x1, y1, x2, y2, got '1, 2, x, 12'"),
        (HEAD + "a.png,1,2,,12,cat\n", r"line 2: box must be four numbers"),
        (HEAD + "a.png,,,,,cat\n", r"line 2: box must be four numbers"),
        (
            HEAD.replace(",", ";") + "a.png;1,5;2;11;12;cat\n",
            r"line 2: box must .*: write a point for the decimal comma in '1,5'",
        ),
        (HEAD + "a.png,1,2,11,12,\n", r"line 2: class must be a name, got '' for a box"),
        (HEAD + ",1,2,11,12,cat\n", r"line 2: image must be the name of a file, got ''"),
        (HEAD + 'a.png,1,2,11,12,"cat\n', r"is not CSV: line \d: unexpected end of data"),
        (HEAD + "a.png,1,2,11,12,\u00e9\n", None),
        (
            (HEAD + "a.png,1,2,11,12,\u00e9\n").encode("latin-1"),
            r"is not text in UTF-8, UTF-16 or UTF-32 \(line 2\): save it as UTF-8",
        ),
        (HEAD + "a.png,,,,,\n", "must have at least one box, got none in 1 rows"),
        (
            HEAD.replace("class", "class,width,height") + "a.png,1,2,11,12,cat,40,x\n",
            "line 2: width and height must be numbers",
        ),
        (
            HEAD.replace("class", "class,width,height") + "a.png,1,2,11,12,cat,40,20\na.png,1,2,11,12,cat,40,21\n",
            r"line 3: width and height must be those of the image's first row, \(40, 20\), got \(40, 21\)",
        ),
    ],
)
def test_a_table_or_a_row_that_is_not_sure_is_one_error_line(tmp_path, text, message):
    path = made(tmp_path, text)
    if message is None:
        assert CsvSource(path).class_names == ("\u00e9",)
        return
    with pytest.raises(ValueError, match=message) as error:
        CsvSource(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "c.png,1,2,11,12,cat\n", r"1 of 1 images do not exist in .*:\n  c\.png"),
        (HEAD.replace("class", "class,width,height") + "a.png,1,2,11,12,cat,20,40\n", "Width and height are swapped"),
        (HEAD.replace("class", "class,width") + "a.png,1,2,11,12,cat,41\n", r"is 40 x 20, annotated as 41 x \?"),
        (HEAD.replace("class", "class,height") + "a.png,1,2,11,12,cat,21\n", r"is 40 x 20, annotated as \? x 21"),
        (
            HEAD.replace("class", "class,width,height") + "a.png,1,2,11,12,cat,40,\n./a.png,2,2,11,12,cat,,21\n",
            r"is 40 x 20, annotated as \? x 21",
        ),
        (
            HEAD + "".join(f"a.png,0.1,0.2,0.{d},0.9,cat\n" for d in range(5, 9)),
            "look like shares of the image's sides",
        ),
    ],
)
def test_images_that_are_missing_and_boxes_of_another_convention_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        CsvSource(made(tmp_path, text))


def test_a_file_that_is_missing_is_said(tmp_path):
    with pytest.raises(
        ValueError, match=r"csv: must name a table of boxes \(\.csv\), got .*nope\.csv, which is no file"
    ):
        open_source(f"csv:{tmp_path}/nope.csv")


def test_a_table_with_semicolons_may_hold_commas_in_quotes(tmp_path):
    Image.new("RGB", (60, 50)).save(tmp_path / "im0.png")
    table = tmp_path / "t.csv"
    table.write_text('"image";"x1";"y1";"x2";"y2";"class"\n"im0.png";10;20;30;40;"cat, red"\n')
    source = open_source(f"csv:{table}")
    assert source.class_names == ("cat, red",)
    assert source[0].boxes.tolist() == [[20.0, 10.0, 40.0, 30.0]]


@pytest.mark.parametrize(
    ("column", "values"),
    [("split", ("train", "val")), ("Sub Set", ("TRAIN", "unused")), ("is_valid", ("True", "False")), ("is-train", (1, 0)),
     ("whatever", ("training", "Test")), ("set", ("dev", "train")), ("where", ("train2017", "val2017"))],
)  # fmt: skip
def test_a_table_whose_rows_are_of_several_splits_is_refused(tmp_path, column, values):
    head = HEAD.replace("\n", f",{column}\n")
    path = made(tmp_path, head + "".join(f"a.png,{i},2,11,12,cat,{value}\n" for i, value in enumerate(values)))
    with pytest.raises(
        ValueError, match=rf"boxes\.csv: must hold the rows of one split, got .* in column '{column}'"
    ) as error:
        CsvSource(path)
    assert "write the rows of each split into a file of its own, for --data and --val-data" in str(error.value)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("split", ("train", "Training")),
        ("split", ("train", "")),
        ("set", ("a", "b")),
        ("test", ("3", "4")),
        ("is_valid", ("1", "1.0")),
        ("note", ("train", "crossing")),
    ],
)
def test_a_column_that_names_no_second_split_is_not_read_and_said(tmp_path, caplog, column, values):
    head = HEAD.replace("\n", f",{column}\n")
    path = made(tmp_path, head + "".join(f"a.png,{i},2,11,12,cat,{value}\n" for i, value in enumerate(values)))
    assert [len(objects) for objects in content(CsvSource(path))] == [2]
    assert f"columns that are not read ('{column}'): 1" in caplog.text


@pytest.mark.parametrize("flag", ["iscrowd", "is_difficult", "Ignore"])
def test_flags_make_a_box_crowd_and_are_counted(tmp_path, caplog, flag):
    text = HEAD.replace("\n", f",{flag}\n") + "".join(
        f"a.png,{i},2,11,12,cat,{value}\n" for i, value in enumerate(("0", "1", "", "True", "no"))
    )
    assert CsvSource(made(tmp_path, text))[0].crowd.tolist() == [False, True, False, True, False]
    assert "1, taken as crowd: 2 (first: " in caplog.text
    with pytest.raises(ValueError, match=r"line 2: \w+ must be 0, 1, true or false, got 'maybe'"):
        CsvSource(made(tmp_path, HEAD.replace("\n", f",{flag}\n") + "a.png,1,2,11,12,cat,maybe\n"))


def test_a_number_is_one_class_however_it_is_spelt(tmp_path, caplog):
    rows = [f"a.png,{i},2,11,12,{name}\n" for i, name in enumerate(("1", "01", "1.0", "10"))]
    source = CsvSource(made(tmp_path, HEAD + "".join(rows)))
    assert source.class_names == ("1", "10")
    assert source[0].labels.tolist() == [0, 0, 0, 1]
    assert "numbers of classes that are spelt otherwise, taken as the same: 2 (first: " in caplog.text
    assert CsvSource(made(tmp_path, HEAD + "a.png,1,2,11,12,1.0\n")).class_names == ("1",)
    assert CsvSource(made(tmp_path, HEAD + rows[0] + rows[1] + "a.png,1,2,11,12,cat\n")).class_names == ("1", "cat")
    assert CsvSource(made(tmp_path, HEAD + rows[1] + "a.png,1,2,11,12,cat\n")).class_names == ("01", "cat")


def test_rows_that_differ_in_spelling_only_count_once(tmp_path, caplog):
    rows = "a.png,1,2,11,12,1\n./a.png,1,2,11,12,1\na.png,1.0,2.00,11,1.2e1,1\na.png,1,2,11,12,01\na.png,1,2,11,12,2\n"
    assert content(CsvSource(made(tmp_path, HEAD + rows))) == [[("1", 2, 1, 12, 11), ("2", 2, 1, 12, 11)]]
    assert "rows that are there twice, left out: 3 (first: " in caplog.text
    assert "boxes.csv, line 3)" in caplog.text
