"""labelme's JSON files: shapes by hand arithmetic, the same as COCO's polygons, and what is wrong with a folder of them."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from kfpn.data.formats import default_val_data, named_splits, open_source, open_untouched
from kfpn.data.formats.bare_folder import found_data
from kfpn.data.formats.labelme import LabelmeSource
from kfpn.data.source_masks import have_masks

L = [[4, 2], [14, 2], [14, 6], [9, 6], [9, 12], [4, 12]]  # 10 x 4 and 5 x 6 pixels
OBJECT = [([2, 4, 12, 14], 0, 70)]


def shape(points=L, kind="polygon", label="cat", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8) * 255).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def write(folder, *shapes, name="a", image=True, orientation=1, **fields):
    """Writes NAME.json and NAME.png or NAME.jpg, 30 x 20 as it is shown."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = "png" if orientation == 1 else "jpg"
    if image:
        exif = Image.Exif()
        exif[0x0112] = orientation
        size = (30, 20) if orientation < 5 else (20, 30)
        Image.new("RGB", size).save(folder / f"{name}.{ending}", **({"exif": exif} if orientation > 1 else {}))
    held = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.{ending}", "imageData": None,
            "imageHeight": 20, "imageWidth": 30}  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(held | fields), encoding="utf-8")


def read(folder, *shapes, **fields):
    write(folder, *shapes, **fields)
    return LabelmeSource(folder, masks=True)


def rows(record):
    return [
        (box, label, round(area))
        for box, label, area in zip(record.boxes.tolist(), record.labels.tolist(), record.areas.tolist(), strict=True)
    ]


def counted(source, words):
    return next((count for kind, (count, _) in source.fault_counts.items() if words in kind), 0)


@pytest.mark.parametrize(
    ("points", "kind", "box", "area", "pixels"),
    [
        (L, "polygon", [2, 4, 12, 14], 70, 70),
        (L, None, [2, 4, 12, 14], 70, 70),  # older files have no shape_type
        ([[14, 12], [4, 2]], "rectangle", [2, 4, 12, 14], 100, 100),
        ([[4, 12], [14, 2]], "rectangle", [2, 4, 12, 14], 100, 100),
        ([[4, 2], [14, 2], [14, 12], [4, 12]], "rectangle", [2, 4, 12, 14], 100, 100),
        ([[10, 4], [14, 8], [10, 12], [6, 8]], "oriented_rectangle", [4, 6, 12, 14], 32, 32),
        ([[15, 10], [15, 4]], "circle", [4, 9, 16, 21], 108, 108),  # twelve sides: 3 r^2
        ([[-6, 2], [14, 12]], "rectangle", [2, 0, 12, 14], 140, 140),
    ],
)
def test_a_shape_is_the_box_around_it_and_its_mask(tmp_path, points, kind, box, area, pixels):
    record = read(tmp_path, shape(points, kind))[0]
    assert rows(record) == [(pytest.approx(box), 0, area)]
    assert abs(int(record.masks.bitmap(0).sum()) - pixels) <= (8 if kind in ("circle", "oriented_rectangle") else 0)


def test_a_mask_lies_with_its_corner_at_the_first_point_and_is_cut_at_the_image(tmp_path):
    pixels = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0]])
    whole = shape([[10, 5], [13, 7]], "mask", mask=png(pixels))
    cut = shape([[28, 18], [31, 20]], "mask", "dog", mask=png(np.ones((3, 4))))
    source = read(tmp_path, whole, cut)
    assert rows(source[0]) == [([6, 11, 8, 13], 0, 3), ([18, 28, 20, 30], 1, 4)]
    drawn = np.zeros((20, 30), np.uint8)
    drawn[5:8, 10:14] = pixels
    assert (source[0].masks.bitmap(0) == drawn).all()
    assert source[0].masks.bitmap(1)[18:, 28:].all()
    assert int(source[0].masks.bitmap(1).sum()) == 4
    assert rows(LabelmeSource(tmp_path)[0]) == rows(source[0])


def test_shapes_of_one_group_and_label_are_one_object(tmp_path):
    square = [[20, 2], [24, 6]]
    parts = [
        shape(group_id=1),
        shape(square, "rectangle", group_id=1),
        shape(square, "rectangle", "dog", group_id=1),
        shape(square, "rectangle", group_id=2),
        shape([[0, 0], [1, 1]], "mask", group_id=2, mask=png(np.ones((2, 2)))),
    ]
    record = read(tmp_path, *parts)[0]
    assert rows(record) == [([2, 4, 12, 24], 0, 86), ([2, 20, 6, 24], 1, 16), ([0, 0, 6, 24], 0, 20)]
    assert [int(record.masks.bitmap(i).sum()) for i in range(3)] == [86, 16, 20]


def test_what_is_no_object_is_left_out_and_counted(tmp_path, caplog):
    nothing = [shape([[1, 1]], "point"), shape([[1, 1], [5, 5]], "line"), shape(L, "linestrip")]
    source = read(tmp_path, shape(), *nothing, shape(label="__ignore__"), shape(label="_background_"),
                  shape([[3, 3]]), shape([[3, 3]], "rectangle"), shape([[3, 3], [float("nan"), 4], [5, 6]]),
                  shape([[40, 30], [44, 34]], "rectangle"))  # fmt: skip
    assert source.class_names == ("cat",)
    assert rows(source[0]) == OBJECT
    assert counted(source, "a point or a line") == 3
    assert counted(source, "__ignore__") == 2
    assert counted(source, "fewer or more points") == 2
    assert counted(source, "not a finite number") == 1
    assert counted(source, "boxes outside") == 1
    assert f"a point or a line, left out: 3 (first: {tmp_path}/a.json: shapes[1], point)" in caplog.text


@pytest.mark.parametrize("mask", [None, "no base64 !", base64.b64encode(b"nothing").decode(), png(np.zeros((3, 4)))])
def test_a_mask_that_cant_be_read_leaves_the_box(tmp_path, mask):
    source = read(tmp_path, shape([[10, 5], [13, 7]], "mask", mask=mask))
    assert rows(source[0]) == [([5, 10, 8, 14], 0, 12)]
    assert counted(source, "can't be read, left out; the boxes stay") == 1
    assert not have_masks(source)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_points_lie_in_the_picture_as_it_is_shown(tmp_path, orientation):
    assert rows(read(tmp_path, shape(), orientation=orientation)[0]) == OBJECT


def test_points_of_the_size_before_the_rotation_are_turned_with_the_picture(tmp_path):
    # A file of 20 x 30 pixels, turned clockwise: x is 30 - y before it, y is x before it.
    sizes = {"imageHeight": 30, "imageWidth": 20}
    mask = shape([[1, 3], [2, 3]], "mask", mask=png(np.ones((1, 2))))
    record = read(tmp_path, shape(), mask, orientation=6, **sizes)[0]
    assert rows(record) == [([4, 18, 14, 28], 0, 70), ([1, 26, 3, 27], 0, 2)]
    assert record.masks.bitmap(1)[1:3, 26].all()
    assert [int(record.masks.bitmap(i).sum()) for i in range(2)] == [70, 2]


def test_the_same_polygons_in_cocos_form_give_the_same_boxes_and_masks(tmp_path):
    chance = np.random.default_rng(5)
    polygons = [np.round(chance.uniform(0, (30, 20), (6, 2)), 2).tolist() for _ in range(8)]
    source = read(tmp_path, *(shape(polygon) for polygon in polygons))
    boxes = [(*np.min(polygon, 0), *np.ptp(polygon, axis=0)) for polygon in polygons]
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}], "annotations": [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": list(box), "segmentation": [np.ravel(polygon).tolist()]}
        for i, (polygon, box) in enumerate(zip(polygons, boxes, strict=True))
    ]}  # fmt: skip
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "a.json").write_text(json.dumps(coco))
    record, other = source[0], open_untouched(f"coco:{tmp_path}/coco/a.json,{tmp_path}", masks=True)[0]
    np.testing.assert_allclose(record.boxes, other.boxes, atol=1e-5)
    for i in range(8):
        np.testing.assert_array_equal(record.masks.bitmap(i), other.masks.bitmap(i))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shapes": 3}, r"a\.json: shapes must be a list, got 3"),
        ({"shapes": [3]}, r"a\.json: shapes\[0\] must be an object"),
        ({"shapes": [shape("x")]}, r"a\.json: shapes\[0\]: points must be pairs of numbers x, y, got 'x'"),
        ({"shapes": [shape([[1, 2], ["3,5", 4], [5, 6]])]}, r"a\.json: shapes\[0\]: points .* got \['3,5', 4\]: write a point"),
        ({"shapes": [shape(label=" ")]}, r"a\.json: shapes\[0\]: label must be the name of a class, got ' '"),
        ({"shapes": [shape(kind="cuboid")]}, r"a\.json: shapes\[0\]: shape_type must be one of polygon, .*, got 'cuboid'"),
        ({"shapes": [shape(group_id=[1])]}, r"a\.json: shapes\[0\]: group_id must be a whole number or null, got \[1\]"),
        ({"imagePath": ""}, r"a\.json: imagePath must be the name of the picture, got ''"),
        ({"imageHeight": "tall"}, r"a\.json: imageHeight and imageWidth must be numbers of pixels, got 'tall' and 30"),
        ({"imageWidth": 31}, r"a\.png of .*a\.json is 30 x 20, annotated as 31 x 20"),
        ({"shapes": []}, "must have at least one annotated object, got none in"),
        ({"image": False}, r"1 of 1 pictures do not exist:\n  .*a\.json: imagePath 'a\.png'\nCopy the pictures to where imagePath says"),
        ({"image": False, "imageData": "iVBO"}, "labelme_export_json FILE writes the picture"),
    ],
)  # fmt: skip
def test_what_cant_be_read_is_refused_with_the_file(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **({"shapes": [shape()]} | fields))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"b\.json: is empty"),
        ('{"shapes": [', r"b\.json: is not JSON: line 1, column 13"),
        ("[]", r"b\.json: must be labelme's JSON, with 'shapes' and 'imagePath', got a list: move it away"),
        ('{"images": []}', r"b\.json: must be labelme's JSON, .* got the keys \['images'\]"),
    ],
)
def test_a_json_file_that_is_not_labelmes_is_named(tmp_path, content, message):
    write(tmp_path, shape())
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_untouched(f"labelme:{tmp_path}")


def test_a_picture_is_found_where_another_machine_put_it(tmp_path, caplog):
    write(tmp_path / "json", shape(), name="a", image=False, imagePath="..\\images\\a.png")
    write(tmp_path / "images", name="a")
    (tmp_path / "images" / "a.json").unlink()
    assert rows(LabelmeSource(tmp_path)[0]) == rows(LabelmeSource(tmp_path / "json")[0]) == OBJECT
    assert not caplog.messages
    for name, said in (("a.png", "last part"), ("C:\\x\\A.PNG", "last part"), ("../images/A.PNG", "spelt otherwise")):
        write(tmp_path / "json", shape(), image=False, imagePath=name)
        assert counted(LabelmeSource(tmp_path), said) == 1
    write(tmp_path / "beside", shape(), imagePath="old name.png")
    assert counted(LabelmeSource(tmp_path / "beside"), "imagePath is not there, so the one image") == 1


def test_no_picture_has_two_files_and_one_without_a_file_is_left_out_and_counted(tmp_path):
    write(tmp_path, shape())
    write(tmp_path, name="b")
    write(tmp_path, name="c")
    (tmp_path / "c.json").unlink()
    source = LabelmeSource(tmp_path)
    assert [rows(record) for record in source] == [OBJECT, []]
    assert counted(source, "images without a JSON file, left out") == 1
    write(tmp_path, name="b", imagePath="a.png")
    with pytest.raises(ValueError, match=r"must have one JSON file, got .*a\.json and .*b\.json for .*a\.png"):
        LabelmeSource(tmp_path)


def test_a_bare_folder_of_labelmes_files_is_recognised(tmp_path, caplog):
    for scene in ("one", "two"):
        write(tmp_path / "scenes" / scene, shape(), imageData="x" * 100_000)
    assert found_data(tmp_path / "scenes") == ("labelme", {"train": f"labelme:{tmp_path}/scenes"})
    assert [rows(record) for record in open_source(tmp_path / "scenes")] == [OBJECT, OBJECT]
    for split in ("train", "valid", "test"):
        write(tmp_path / "splits" / split, shape())
    root = str(tmp_path / "splits")
    assert named_splits(root) == {
        "train": f"labelme:{root}", "validation": f"labelme:{root},val", "test": f"labelme:{root},test",
    }  # fmt: skip
    assert default_val_data(f"labelme:{root}") == default_val_data(root) == f"labelme:{root},val"
    assert default_val_data(f"labelme:{root},val") is None
    assert [open_source(root, split).table.names[0] for split in ("train", "validation")] == [
        f"{root}/train/a.png", f"{root}/valid/a.png",
    ]  # fmt: skip
    assert "read as labelme" in caplog.text
    with pytest.raises(ValueError, match=r"split must be left out, got 'val'"):
        open_source(f"labelme:{tmp_path}/scenes,val")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must have labelme's JSON files, got none in"):
        open_source(f"labelme:{tmp_path}/empty")
    with pytest.raises(ValueError, match=r"folder .*nowhere does not exist"):
        open_source(f"labelme:{tmp_path}/nowhere")


def test_a_changed_file_is_read_again(tmp_path):
    write(tmp_path, shape())
    name = f"labelme:{tmp_path}"
    assert rows(open_source(name)[0]) == rows(open_source(name)[0]) == OBJECT
    write(tmp_path, shape(label="dog"), image=False)
    assert open_source(name).class_names == ("dog",)
