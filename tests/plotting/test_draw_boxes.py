import json

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from kfpn.plotting import fonts
from kfpn.plotting.curves import plot_curves
from kfpn.plotting.draw_boxes import class_color, draw_detections, side_by_side

GRAY = np.full((200, 300, 3), 90, np.uint8)


def test_a_box_has_an_outline_in_the_colour_of_its_class_and_its_inside_is_unchanged():
    picture = draw_detections(GRAY, np.array([[50, 60, 150, 260]]), np.array([2]))
    assert picture.shape == GRAY.shape
    assert picture.dtype == np.uint8
    for y, x in ((50, 200), (149, 200), (100, 60), (100, 259)):  # half-open: rows 50 to 149, columns 60 to 259
        assert tuple(picture[y, x]) == class_color(2)
    assert (picture[53:147, 63:257] == 90).all()
    assert (picture[151:] == 90).all()
    assert (GRAY == 90).all()


def test_all_classes_have_different_colours_and_the_first_ones_clearly_different():
    colors = np.array([class_color(label) for label in range(80)], int)
    distance = np.abs(colors[:, None] - colors[None]).sum(axis=-1)
    assert len(np.unique(colors, axis=0)) == 80
    assert distance[:12, :12][~np.eye(12, dtype=bool)].min() > 60


def test_the_name_and_the_score_are_written_beside_the_box():
    box, label = np.array([[80, 20, 150, 200]]), np.array([0])
    pictures = [
        draw_detections(GRAY, box, label, scores, names)
        for scores, names in ((None, ["cat"]), (np.array([0.5]), ["cat"]), (np.array([0.5]), ["dog"]))
    ]
    areas = [int((picture[:80] != 90).any(axis=-1).sum()) for picture in pictures]
    assert 0 < areas[0] < areas[1]
    assert (pictures[1] != pictures[2]).any()


@pytest.mark.parametrize(
    "box",
    [[0, 0, 200, 300], [-50, -50, 500, 500], [199, 299, 200, 300], [50, 50, 50, 50], [0, 280, 10, 300]],
    ids=["whole image", "outside", "last pixel", "no area", "corner"],
)
def test_boxes_at_and_beyond_the_border_are_drawn(box):
    assert (draw_detections(GRAY, np.array([box]), np.array([0]), np.array([1.0]), ["a long name"]) != 90).any()


def test_empty_arrays_and_padded_rows_draw_nothing():
    np.testing.assert_array_equal(draw_detections(GRAY, np.zeros((0, 4)), np.zeros(0), np.zeros(0), ["cat"]), GRAY)
    np.testing.assert_array_equal(draw_detections(GRAY, np.zeros((3, 4)), np.full(3, -1), np.zeros(3), ["cat"]), GRAY)


def test_the_best_box_lies_on_top():
    boxes, labels = np.array([[50, 50, 150, 150], [50, 50, 150, 150]]), np.array([0, 1])
    assert tuple(draw_detections(GRAY, boxes, labels, np.array([0.9, 0.1]))[149, 100]) == class_color(0)
    assert tuple(draw_detections(GRAY, boxes, labels, np.array([0.1, 0.9]))[149, 100]) == class_color(1)


def test_images_and_lengths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8, got \(200, 300, 3\) float32"):
        draw_detections(GRAY.astype(np.float32), np.zeros((0, 4)), np.zeros(0))
    with pytest.raises(ValueError, match=r"one length, got \[1, 2\]"):
        draw_detections(GRAY, np.zeros((1, 4)), np.zeros(2))


def test_ground_truth_and_detections_are_drawn_side_by_side_and_enlarged():
    truth = {"boxes": [[50, 60, 150, 260]], "labels": [0]}
    detections = {"boxes": [[50, 60, 150, 260], [0, 0, 40, 40]], "labels": [1, 2], "scores": [0.9, 0.2]}
    sheet = side_by_side(GRAY, truth, detections, ["cat", "dog", "cow"])
    assert sheet.shape[1] > 2 * 480
    assert sheet.shape[0] > 320
    colors = [set(map(tuple, half.reshape(-1, 3).tolist())) for half in np.array_split(sheet, 2, axis=1)]
    assert class_color(0) in colors[0]
    assert class_color(1) not in colors[0]
    assert class_color(1) in colors[1]
    assert class_color(2) not in colors[1]  # its score is below the least score that is drawn
    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0), "scores": np.zeros(0)}
    assert side_by_side(GRAY, nothing, nothing, ["cat"]).shape == sheet.shape


def test_curves_are_drawn_from_what_a_run_has_written_so_far(tmp_path):
    path, png = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
    path.write_text("")
    plot_curves(path, png)
    empty = np.asarray(Image.open(png).convert("RGB"))
    rows = [{"step": step, "loss": 1 / step, "rpn_box": 0.1, "lr": 0.01} for step in range(1, 9)]
    rows.append({"step": 8, "AP": 0.5, "AP50": 0.7, "AP75": None})
    path.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"step": 9, "los')  # a crash cut the last line
    plot_curves(path, png)
    drawn = np.asarray(Image.open(png).convert("RGB"))
    assert drawn.shape == empty.shape
    for third in (slice(0, 440), slice(440, 880), slice(880, None)):
        assert (drawn[:, third] != empty[:, third]).any()


@pytest.fixture
def machine_fonts(monkeypatch):
    """Sets the fonts of the machine, beside DejaVu Sans."""
    from matplotlib import font_manager

    def given(*paths):
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(path) for path in paths])
        clear()

    def clear():
        for cached in (fonts._fonts_of_machine, fonts._path_for, fonts._warn_of_missing_font, fonts._codes):
            cached.cache_clear()

    yield given
    monkeypatch.undo()
    clear()


def font_with(signs, path):
    """Writes a font in which each sign is a filled triangle."""
    builder = FontBuilder(1000)
    names = [".notdef", *(f"sign{ord(sign)}" for sign in signs)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(sign): f"sign{ord(sign)}" for sign in signs})
    pen = TTGlyphPen(None)
    for place, draw in (((0, 0), pen.moveTo), ((800, 0), pen.lineTo), ((400, 800), pen.lineTo)):
        draw(place)
    pen.closePath()
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_a_name_that_dejavu_lacks_is_drawn_in_a_font_of_the_machine_that_has_it(machine_fonts, tmp_path, caplog):
    machine_fonts(font_with("犬 0123456789%", tmp_path / "a.ttf"), font_with("猫 0123456789%", tmp_path / "b.ttf"))
    assert fonts.font_for("猫 90%", 16).path == str(tmp_path / "b.ttf")
    assert fonts.font_for("cat", 16).path.endswith("DejaVuSans.ttf")
    box, label, score = np.array([[80, 20, 150, 200]]), np.array([0]), np.array([0.9])
    own, number = (draw_detections(GRAY, box, label, score, names) for names in (["猫"], ["0"]))
    assert (own != number).any()
    assert caplog.records == []


def test_without_a_font_the_number_is_drawn_and_that_is_said_once(machine_fonts, caplog):
    machine_fonts()
    boxes, labels, scores = np.array([[80, 20, 150, 200]] * 2), np.array([1, 1]), np.array([0.9, 0.8])
    pictures = [draw_detections(GRAY, boxes, labels, scores, names) for names in (["犬", "猫"], ["0", "1"])]
    np.testing.assert_array_equal(*pictures)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "no font on this machine has the signs of some class names, so their numbers are drawn"
    ]


def test_line_breaks_in_a_name_are_spaces(machine_fonts):
    box, label = np.array([[80, 20, 150, 200]]), np.array([0])
    np.testing.assert_array_equal(
        *(draw_detections(GRAY, box, label, None, [n]) for n in ("traffic\nlight", "traffic light"))
    )
