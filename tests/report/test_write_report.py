import base64
import dataclasses
import html.parser
import io
import json
import os
import re
import shutil
import time

import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

import kfpn.runs.load
from kfpn.cli.command_line import main
from kfpn.cli.report_command import report_on_training
from kfpn.config.presets import preset
from kfpn.config.run import to_dict
from kfpn.data.formats import open_source
from kfpn.evaluation.coco_figures import evaluate_coco_json
from kfpn.report.compare_runs import comparison_page, gather_two
from kfpn.report.gather import ReportRequest, gather_run
from kfpn.report.results_file import read_results
from kfpn.report.worst_images import worst_images
from kfpn.report.write_report import SECTIONS, report_page
from kfpn.runs.workdir import Workdir
from tests.report.made_runs import IDS, NAMES, RIGHT, WRONG, write_data, write_detections, write_run

EMPTY = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Reads a page: its elements with their attributes, its text; fails where elements are not closed in their order."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag, **attributes):
        return [
            found_one for name, found_one in self.elements if name == tag and attributes.items() <= found_one.items()
        ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a folder with data, a work directory `run` and detections `wrong.json` and `right.json`; and the data's name."""
    folder = tmp_path_factory.mktemp("report")
    data = write_data(folder / "data")
    write_run(folder / "run", data)
    write_run(folder / "later", data, seed=7)
    write_detections(folder / "wrong.json", *WRONG)
    write_detections(folder / "right.json", *RIGHT)
    return folder, data


@pytest.fixture(scope="module")
def wrong_run(made):
    folder, _ = made
    return gather_run(ReportRequest(folder / "run", detections=folder / "wrong.json"))


@pytest.fixture(scope="module")
def page(wrong_run):
    return Page(report_page(wrong_run))


def test_a_page_loads_nothing_and_its_pictures_open(wrong_run, page):
    text = report_page(wrong_run)
    places = [one.get(name) for _, one in page.elements for name in ("src", "href", "data", "poster", "action")]
    assert all(place.startswith(("data:image/", "#")) for place in places if place is not None)
    assert page.all("link") == []
    assert "@import" not in text
    assert "url(" not in text
    assert re.findall(r"https?://[^\s\"'<]+", text) == []
    for picture in page.all("img"):
        kind, content = picture["src"].removeprefix("data:image/").split(";base64,")
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        image.load()
        assert image.format.lower() == kind


def test_a_page_has_all_sections_and_their_anchors(page):
    assert [one["id"] for one in page.all("section")] == [anchor for anchor, _ in SECTIONS]
    assert [one["href"] for one in page.all("a") if one["href"] != "#errors"] == [
        f"#{anchor}" for anchor, _ in SECTIONS if anchor != "errors"
    ]


def test_names_of_classes_are_escaped(page):
    assert "<i>dog</i>" in page.text
    assert page.all("i") == []


def test_images_with_errors_are_shown_with_what_went_wrong_and_can_be_chosen_by_class(page):
    figures = page.all("figure")
    # Image 2 has a missed cat (weight 1), image 3 a dog where there is none (.95), image 1 a dog taken for a cat (.8).
    assert [(one["data-rank"], one["data-kinds"], one["data-classes"]) for one in figures] == [
        ("0", "missed", "0"), ("1", "background", "1"), ("2", "class", "0 1"),
    ]  # fmt: skip
    for words in (
        "missed cat (50 x 80 pixels)",
        "<i>dog</i> where there is none (95%)",
        "<i>dog</i> taken for cat (80%)",
    ):
        assert words in page.text
    assert {"value": "1"} in page.all("option")


def test_the_figures_are_those_of_the_files(made, wrong_run, page):
    folder, _ = made
    figures = evaluate_coco_json(folder / "data" / "data.json", folder / "wrong.json")
    assert {name: wrong_run.figures[name] for name in figures} == figures
    assert f"{figures['AP']:.4f}" in page.text
    assert wrong_run.analyses[0].ap == pytest.approx(figures["AP"])


def test_a_page_is_the_same_each_time(made, wrong_run):
    folder, _ = made
    again = gather_run(ReportRequest(folder / "run", detections=folder / "wrong.json"))
    assert report_page(again) == report_page(wrong_run)


def test_a_run_without_an_error_and_without_curves_has_a_page(made, tmp_path):
    folder, data = made
    run = write_run(tmp_path / "run", data)
    (run / "metrics.jsonl").unlink()
    gathered = gather_run(ReportRequest(run, detections=folder / "right.json"))
    text = Page(report_page(gathered)).text
    assert worst_images(gathered) == []
    assert "0 of 3 images have an error" in text
    assert "no metrics.jsonl" in text
    assert "No kind of error costs more than" in text


def test_the_number_of_pictures_is_kept(made):
    folder, _ = made
    few = gather_run(ReportRequest(folder / "run", detections=folder / "wrong.json", images=1))
    assert len(Page(report_page(few)).all("figure")) == 1
    none = Page(report_page(dataclasses.replace(few, request=dataclasses.replace(few.request, images=0))))
    assert none.all("figure") == []
    assert "3 of 3 images have an error. No picture was asked for." in none.text


def test_an_image_that_is_gone_leaves_its_words(made, tmp_path):
    folder, _ = made
    data = write_data(tmp_path / "data")
    run = write_run(tmp_path / "run", data)
    gathered = gather_run(ReportRequest(run, detections=folder / "wrong.json"))
    (tmp_path / "data" / "2.png").unlink()
    page = Page(report_page(gathered))
    assert len(page.all("figure")) == 3
    assert "no picture: " in page.text
    assert "2.png" in page.text


def test_what_the_data_check_left_out_is_listed(tmp_path):
    boxes = [(1, 17, [10, 10, 30, 30]), (1, 17, [10, 10, 0, 30])]
    data = write_data(tmp_path / "data", boxes)
    run = write_run(tmp_path / "run", data)
    detections = write_detections(tmp_path / "found.json", RIGHT[0])
    gathered = gather_run(ReportRequest(run, detections=detections))
    (fault,) = gathered.source.fault_counts
    assert fault in Page(report_page(gathered)).text


def test_two_runs_lie_beside_each_other(made):
    folder, _ = made
    before, after = gather_two(
        ReportRequest(folder / "run", detections=folder / "wrong.json"),
        ReportRequest(folder / "later", detections=folder / "right.json"),
    )
    page = Page(comparison_page(before, after))
    assert len(page.all("figure")) == 3  # all three images became better
    assert "3 of 3 images became better, 0 worse" in page.text
    assert "seed" in page.text
    assert page.all("span", **{"class": "better"})
    assert not page.all("span", **{"class": "worse"})
    assert all(one["src"].startswith("data:image/jpeg") for one in page.all("img"))


@pytest.mark.parametrize("asked", [False, True])
def test_masks_of_the_data_are_there_if_one_of_two_runs_has_them(made, tmp_path, asked):
    folder, data = made
    run = write_run(tmp_path / "run", data, model={**to_dict(preset("shapes").model), "mask": True})
    requests = [
        ReportRequest(place, data if asked else None, detections=folder / "right.json")
        for place in (folder / "run", run)
    ]
    for before, after in (gather_two(*requests), gather_two(*requests[::-1])):
        assert before.source is after.source
        assert before.source[0].masks is not None


def test_scores_that_are_all_too_low_to_be_drawn_are_said(made):
    folder, _ = made
    write_detections(folder / "unsure.json", *((*row[:3], 0.31) for row in RIGHT))
    unsure, sure = (ReportRequest(folder / "run", detections=folder / f"{name}.json") for name in ("unsure", "right"))
    line = "a score of 0.5 or more, so none is drawn: the highest is 0.310. A lower --min-score shows them"
    assert f"No detection has {line}" in Page(report_page(gather_run(unsure))).text
    assert f"In neither run has a detection {line}" in Page(comparison_page(*gather_two(unsure, unsure))).text
    for page in (report_page(gather_run(sure)), comparison_page(*gather_two(unsure, sure))):
        assert "so none is drawn" not in Page(page).text


@pytest.mark.parametrize(
    ("files", "most", "shown"),
    [
        (("wrong", "right"), 2, ["better", "better"]),
        (("right", "wrong"), 1, ["worse"]),
        (("mixed", "wrong"), 2, ["better", "worse"]),
        (("right", "right"), 2, []),
    ],
)
def test_the_pictures_of_two_runs_are_half_of_each_where_there_are_enough(made, files, most, shown):
    folder, _ = made
    # Image 2 becomes worse, for its cat is missed; image 3 better, for there was another dog where none is.
    write_detections(folder / "mixed.json", *WRONG[:2], RIGHT[2], WRONG[2], (3, 18, [60, 40, 20, 20], 0.9))
    runs = gather_two(
        *(ReportRequest(folder / "run", detections=folder / f"{file}.json", images=most) for file in files)
    )
    page = Page(comparison_page(*runs))
    assert [one["class"] for one in page.all("b") if one.get("class") in ("better", "worse")] == shown
    assert len(page.all("figure")) == len(shown)


def test_two_runs_on_other_data_are_refused(made, tmp_path):
    folder, _ = made
    other = write_data(tmp_path / "data", names=("cat", "cow"))
    run = write_run(tmp_path / "run", other)
    first = ReportRequest(folder / "run", detections=folder / "wrong.json")
    with pytest.raises(ValueError, match="data must be the same for both runs"):
        gather_two(first, ReportRequest(run, data=other, detections=folder / "wrong.json"))


def test_detections_of_a_file_are_those_that_were_written(made):
    folder, data = made
    one, two, three = read_results(folder / "wrong.json", open_source(data, "validation"))
    assert [one["image_id"], two["image_id"], three["image_id"]] == [1, 2, 3]
    assert one["boxes"].tolist() == [[10, 10, 40, 40], [20, 60, 80, 100]]
    assert (one["labels"].tolist(), one["scores"].tolist()) == ([0, 0], [0.9, 0.8])
    assert len(two["boxes"]) == 0
    assert three["labels"].tolist() == [1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((9, 17, [0, 0, 5, 5], 0.5), r"row 1: image_id must be that of an image of .*, got 9: give --data"),
        ((1, 99, [0, 0, 5, 5], 0.5), r"row 1: category_id must be one of .* \(17, 18\), got 99: give --data"),
        ((1, 17, [100, 0, 50, 5], 0.5), r"row 1: bbox must lie in its image, 120 x 90 pixels .*: give --data"),
        ((1, 17, [0, 0, 5], 0.5), r"row 1: bbox must be \[x, y, width, height\], got \[0, 0, 5\]"),
        ((1, 17, [0, 0, -5, 5], 0.5), r"row 1: bbox must have a width and a height of at least 0"),
        ((1, 17, [0, 0, 5, 5], 50), r"row 1: score must lie in 0..1, got 50"),
        ((1, 17, [0, 0, 5, 5], float("nan")), r"row 1: score must lie in 0..1, got nan"),
        (("1", 17, [0, 0, 5, 5], 0.5), r"row 1: image_id must be an integer, got '1'"),
    ],
)
def test_detections_of_other_data_or_another_form_are_refused(made, tmp_path, row, message):
    _, data = made
    path = write_detections(tmp_path / "found.json", RIGHT[0], row)
    with pytest.raises(ValueError, match=message):
        read_results(path, open_source(data, "validation"))


def test_a_file_that_is_no_list_is_refused(made, tmp_path):
    _, data = made
    path = tmp_path / "found.json"
    for content, message in (
        ("{}", "must be a list of detections"),
        ("no", "must be JSON"),
        ("[1]", "row 0 must be a detection"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_results(path, open_source(data, "validation"))


def test_the_command_writes_the_file_and_says_where(made, tmp_path, capsys):
    folder, data = made
    output = tmp_path / "report.html"
    wrong, right = (str(folder / name) for name in ("wrong.json", "right.json"))
    assert main(["report", "--workdir", str(folder / "run"), "--detections", wrong, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "images with an error: 3 of 3" in said
    assert str(output) in said
    assert Page(output.read_text(encoding="utf-8")).all("figure")
    both = ["report", str(folder / "run"), str(folder / "later"), "--data", data, "--output", str(output)]
    assert main([*both, "--detections", wrong, right]) == 0
    assert "->" in capsys.readouterr().out
    assert "became better" in output.read_text(encoding="utf-8")


def test_at_the_end_of_a_training_its_detections_are_reported_on_once(made, tmp_path, capsys):
    folder, data = made
    run = Workdir(write_run(tmp_path / "run", data))
    config, final = run.read_config(), {"AP": 0.3}
    report_on_training(config, final)  # nothing was measured
    shutil.copy(folder / "wrong.json", run.detections)
    report_on_training(dataclasses.replace(config, report=False), final)
    report_on_training(config, {})  # a worker that is not the chief
    assert not run.report.exists()
    report_on_training(config, final)
    assert str(run.report) in capsys.readouterr().out
    page = Page(run.report.read_text(encoding="utf-8"))
    assert page.all("figure")
    written = run.report.stat().st_mtime_ns
    report_on_training(config, final)  # the command is repeated
    assert run.report.stat().st_mtime_ns == written
    os.utime(run.detections, (time.time() + 10,) * 2)
    report_on_training(config, final)  # the run went on, and has better weights
    assert run.report.stat().st_mtime_ns > written


def test_a_report_that_can_t_be_written_leaves_the_training_as_it_is(made, tmp_path):
    run = Workdir(write_run(tmp_path / "run", made[1]))
    write_detections(run.detections, (77, 17, [1, 1, 5, 5], 0.9))
    with pytest.warns(UserWarning, match=r"report\.html can't be written: .*77"):
        report_on_training(run.read_config(), {"AP": 0.3})
    assert not run.report.exists()


class UpperLeft:
    """Stands in for a detector: detects a cat of score .9 in the upper left quarter of an image, and a dog of score .3 everywhere."""

    class_names, category_ids = NAMES, IDS

    def __call__(self, inputs):
        size = tf.cast(inputs["image_sizes"], tf.float32)
        origin, rows = tf.zeros_like(size), tf.shape(size)[0]
        return {
            "boxes": tf.stack([tf.concat([origin, size / 2], 1), tf.concat([origin, size], 1)], axis=1),
            "scores": tf.tile([[0.9, 0.3]], [rows, 1]),
            "labels": tf.tile([[0, 1]], [rows, 1]),
            "num_detections": tf.fill([rows], 2),
        }


def test_what_a_detector_finds_and_what_a_file_has_of_it_give_the_same_page(tmp_path, monkeypatch, capsys):
    data = write_data(tmp_path / "data")
    run = write_run(tmp_path / "run", data, jit_compile=False)
    (run / "detector.weights.h5").touch()
    monkeypatch.setattr(kfpn.runs.load, "load_trained_detector", lambda workdir, *_, **__: UpperLeft())
    file = tmp_path / "found.json"
    assert main(["evaluate", "--workdir", str(run), "--detections", str(file)]) == 0
    live = gather_run(ReportRequest(run))
    of_file = gather_run(ReportRequest(run, detections=file))
    assert len(live.detections[1]["scores"]) == 2
    assert live.figures == of_file.figures
    said = f". Detections: {file}."
    assert said in report_page(of_file)
    assert report_page(live) == report_page(of_file).replace(said, ", at most 100 detections an image.")
    capsys.readouterr()


def outline(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.fixture(scope="module")
def with_masks(made):
    """Returns a folder with data and detections `found.json`, all with masks, and the data's name."""
    folder = made[0] / "masks"
    data = write_data(folder / "data")
    path = folder / "data" / "data.json"
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        one["segmentation"] = outline(*one["bbox"])
    path.write_text(json.dumps(content))
    rows = json.loads(write_detections(folder / "found.json", *RIGHT).read_text())
    for row in rows:
        (packed,) = coco_mask.frPyObjects(outline(*row["bbox"]), 90, 120)
        row["segmentation"] = {"size": [90, 120], "counts": packed["counts"].decode()}
    (folder / "found.json").write_text(json.dumps(rows))
    return folder, data


def test_masks_have_figures_errors_and_curves_of_their_own(with_masks):
    folder, data = with_masks
    run = write_run(folder / "run", data, model={**to_dict(preset("shapes").model), "mask": True})
    gathered = gather_run(ReportRequest(run, detections=folder / "found.json"))
    assert [one.kind for one in gathered.analyses] == ["bbox", "segm"]
    assert gathered.figures["mask_AP"] == pytest.approx(1)
    page = Page(report_page(gathered))
    assert "AP of masks" in page.text
    assert "masks: AP50 is 1.000" in page.text
    assert "masks, each class at IoU 0.5" in page.text
    assert "Masks are not measured" not in page.text


def test_masks_that_are_not_measured_are_said_with_the_reason(with_masks, made):
    folder, data = with_masks
    boxes = write_run(folder / "boxes", data)
    masks = write_run(folder / "without", made[1], model={**to_dict(preset("shapes").model), "mask": True})
    for run, reason in ((boxes, "the run has no mask head"), (masks, "no object has one")):
        gathered = gather_run(ReportRequest(run, detections=folder / "found.json"))
        assert [one.kind for one in gathered.analyses] == ["bbox"]
        assert f"Masks are not measured, because {reason}" in Page(report_page(gathered)).text


def test_a_file_whose_masks_have_another_size_is_named(with_masks, tmp_path):
    folder, data = with_masks
    rows = json.loads((folder / "found.json").read_text())
    rows[1]["segmentation"]["size"] = [120, 90]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    with pytest.raises(
        ValueError, match=r"found\.json: results\[1\]: segmentation must have the size of image 1, \[90, 120\]"
    ):
        read_results(tmp_path / "found.json", open_source(data, "validation"))


def test_a_file_may_have_more_detections_of_an_image_than_the_detector_gives(made, tmp_path):
    _, data = made
    run = write_run(tmp_path / "run", data, model={**to_dict(preset("shapes").model), "max_detections": 2})
    file = write_detections(
        tmp_path / "found.json", *RIGHT, *((1, 17, [80, 5, 5, 5], 0.1 + row / 1000) for row in range(120))
    )
    gathered = gather_run(ReportRequest(run, detections=file))
    assert (gathered.analyses[0].limit, "AP@122" in gathered.figures) == (122, True)
    text = Page(report_page(gathered)).text
    assert "at most" not in text
    assert "as many as model.max_detections" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "workdir must name one run, or two as kfpn report BEFORE AFTER, got nothing"),
        (["a", "b", "c"], "workdir must name one run, or two as kfpn report BEFORE AFTER, got a b c"),
        (["a", "b", "--detections", "x.json"], "detections must name a file for each run, got 1 for 2"),
        (["--workdir", "a", "--output", "report.pdf"], "output must end in .html, got report.pdf"),
        (["--workdir", "a", "--images", "-1"], "images must be an integer of at least 0, got -1"),
        (["--workdir", "nowhere"], "workdir must be a folder, got 'nowhere', which does not exist"),
        (
            ["{run}", "nowhere", "--detections", "x", "y"],
            "workdir must be a folder, got 'nowhere', which does not exist",
        ),
        (["--workdir", "{run}"], "workdir must hold trained weights, got"),
        (["--workdir", "{run}", "--output", "{run}/no/report.html"], "must lie in a folder that is there"),
        (["--workdir", "{run}", "--detections", "nowhere.json"], "No such file or directory: 'nowhere.json'"),
    ],
)
def test_a_command_that_can_t_be_carried_out_says_why_in_one_line(made, capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *(word.replace("{run}", str(made[0] / "run")) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_data_without_objects_are_refused(made, tmp_path):
    data = write_data(tmp_path / "data", [(1, 17, [10, 10, 0, 30])])
    run = write_run(tmp_path / "run", data)
    with pytest.raises(ValueError, match="data must have objects to find, got none in the 3 images"):
        gather_run(ReportRequest(run, detections=made[0] / "wrong.json"))
