"""Reports of runs, data, names and files as they should not be."""

import json
import os
import shutil

import pytest
from PIL import Image

from kfpn.cli.command_line import main
from kfpn.data.formats import open_source
from kfpn.data.image import load_picture
from kfpn.plotting.curves import draw_curves
from kfpn.report.compare_runs import comparison_page, gather_two
from kfpn.report.gather import ReportRequest, gather_run
from kfpn.report.page import whole_page
from kfpn.report.results_file import read_results
from kfpn.report.write_report import report_page
from tests.report.made_runs import RIGHT, write_data, write_detections, write_run


@pytest.fixture
def folder(tmp_path):
    """Returns a folder with data, a work directory `run` and detections `right.json`."""
    write_run(tmp_path / "run", write_data(tmp_path / "data"))
    write_detections(tmp_path / "right.json", *RIGHT)
    return tmp_path


def report(folder, output):
    command = ["report", "--workdir", str(folder / "run"), "--detections", str(folder / "right.json")]
    return main([*command, "--output", str(output)])


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


GOOD = b'{"step": 1, "loss": 2}\n{"step": 3, "loss": 1}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b'{"step": "two", "loss": 5}',
        b'{"step": null, "loss": 5}',
        b'{"step": [2], "loss": 5}',
        b'{"step": 2, "loss": "high"}',
        b'{"step": 2, "loss": [5]}',
        b'{"step": 2, "loss": NaN}',
        b'{"step": 2, "loss": 1.7e308}',
        b'{"step": 2, "loss": ' + b"9" * 5000 + b"}",
        b'{"step": ' + b"9" * 400 + b', "loss": 5}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_row_of_the_metrics_is_left_out_of_the_curves(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line + b"\n" + GOOD)
    figure = draw_curves(path)
    figure.canvas.draw()
    (drawn,) = figure.axes[0].lines
    assert (list(drawn.get_xdata()), list(drawn.get_ydata())) == ([1, 3], [2, 1])


def test_curves_that_can_t_be_drawn_cost_the_report_nothing_else(folder):
    metrics = folder / "run" / "metrics.jsonl"
    metrics.unlink()
    metrics.mkdir()
    page = report_page(gather_run(ReportRequest(folder / "run", detections=folder / "right.json")))
    assert "no curves: [Errno 21] Is a directory" in page
    assert "model.backbone" in page


def test_a_file_of_the_user_is_not_overwritten_and_an_earlier_report_is(folder, capsys):
    own = folder / "own.html"
    own.write_text("<title>my page</title>")
    assert report(folder, own) == 2
    assert "output must be a new file or an earlier report, got " in capsys.readouterr().err
    assert own.read_text() == "<title>my page</title>"
    own.write_text("")
    for _ in range(2):
        assert report(folder, own) == 0
    assert "COCO" in own.read_text(encoding="utf-8")


def test_a_file_beside_the_report_stays_and_none_is_left(folder):
    (folder / "report.html.tmp").write_text("mine")
    before = files_of(folder)
    assert report(folder, folder / "report.html") == 0
    assert files_of(folder) == sorted([*before, "report.html"])
    assert (folder / "report.html.tmp").read_text() == "mine"


def test_a_name_as_long_as_names_may_be_can_be_written(folder):
    name = "x" * 250 + ".html"
    assert report(folder, folder / name) == 0
    assert name in files_of(folder)


def test_a_folder_that_can_t_be_written_is_named_before_the_work(folder, capsys):
    assert report(folder, "/proc/report.html") == 2
    error = capsys.readouterr()
    assert "/proc/report.html must lie in a folder that can be written, got /proc: " in error.err
    assert error.out == ""  # not even the data were opened


def test_a_device_is_not_replaced(folder, capsys):
    (folder / "full.html").symlink_to("/dev/full")
    assert report(folder, folder / "full.html") == 2
    assert "full.html must be the name of a file, got a device or a pipe" in capsys.readouterr().err
    assert (folder / "full.html").is_symlink()


def test_a_page_says_which_run_and_which_files_it_is_of(folder, monkeypatch):
    monkeypatch.chdir(folder / "run")
    other = folder / "other.json"
    other.write_text("[]")
    before, after = (ReportRequest(".", detections=file) for file in (other, folder / "right.json"))
    assert f"<h1>{folder / 'run'}</h1>" in report_page(gather_run(after))
    said = f"Detections: before {other}, after {folder / 'right.json'}."
    assert said in comparison_page(*gather_two(before, after))


def test_a_second_run_of_other_classes_is_named_before_the_first_one_detects(folder, monkeypatch):
    shutil.copytree(folder / "run", folder / "later")
    (folder / "later" / "classes.json").write_text(json.dumps({"class_names": ["cow"], "category_ids": [1]}))
    for name in ("run", "later"):
        (folder / name / "detector.weights.h5").touch()
    monkeypatch.setattr("kfpn.report.gather.open_evaluation", lambda request: pytest.fail("it detects"))
    with pytest.raises(ValueError, match=r"later: coco:.*: classes must be among those of the model \(cow\), got"):
        gather_two(ReportRequest(folder / "run"), ReportRequest(folder / "later"))


def test_data_that_are_gone_are_said_to_be_those_of_the_run(folder):
    shutil.rmtree(folder / "data")
    with pytest.raises(ValueError, match=r"these are the run's own data; --data names other ones"):
        gather_run(ReportRequest(folder / "run", detections=folder / "right.json"))


def test_pillow_does_not_warn_of_images_that_kfpn_allows(folder, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # the images have 10,800 pixels
    with pytest.warns(Image.DecompressionBombWarning):
        load_picture(folder / "data" / "1.png")
    recwarn.clear()
    assert report(folder, folder / "report.html") == 0
    assert [one for one in recwarn if issubclass(one.category, Image.DecompressionBombWarning)] == []


def test_names_that_are_not_utf_8_are_shown_with_their_bytes(folder):
    run = folder / os.fsdecode(b"caf\xe9")
    shutil.copytree(folder / "run", run)
    command = ["report", "--workdir", str(run), "--detections", str(folder / "right.json")]
    assert main([*command, "--output", str(folder / "report.html")]) == 0
    assert "caf\\udce9</h1>" in (folder / "report.html").read_text(encoding="utf-8")
    assert "lone \\ud800" in whole_page("lone \ud800", [], "", [])


def test_detections_of_predict_whose_numbers_are_other_images_are_refused(folder):
    source = open_source(f"coco:{folder / 'data' / 'data.json'}", "validation")
    path = folder / "named.json"
    rows = json.loads((folder / "right.json").read_text())
    for row in rows:
        row["file_name"] = f"elsewhere/{row['image_id']}.PNG"
    path.write_text(json.dumps(rows))
    assert [len(one["scores"]) for one in read_results(path, source)] == [2, 1, 0]
    rows[2]["file_name"] = "elsewhere/3.png"
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r"row 2: file_name must be that of image 2 of .*2\.png, got elsewhere/3\.png"):
        read_results(path, source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "must be JSON, got lists or objects that are nested too deep"),
        (f"[{'9' * 5000}]", "must be JSON, got: Exceeds the limit"),
        (
            f'[{{"image_id": 1, "category_id": 17, "score": 0.5, "bbox": [1, 1, {"9" * 400}, 1]}}]',
            r"bbox must be \[x, y, width, height\]",
        ),
    ],
)
def test_numbers_and_lists_that_python_can_t_take_are_named(folder, content, message):
    path = folder / "odd.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"odd\.json.*{message}"):
        read_results(path, open_source(f"coco:{folder / 'data' / 'data.json'}", "validation"))
