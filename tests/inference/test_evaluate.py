import dataclasses
import json

import keras
import numpy as np
import pytest
from PIL import Image

import kfpn
import kfpn.data.formats
import kfpn.runs.load
from kfpn.cli import command_line as cli
from kfpn.config.run import Config, InputConfig
from kfpn.data.formats.iterable import IterableSource
from kfpn.data.proposal_table import collect_proposals, write_proposals
from kfpn.data.record import Record
from kfpn.evaluation.coco_figures import FIGURES
from kfpn.evaluation.detect import evaluate_source
from kfpn.evaluation.recall import RECALLS, evaluate_proposals
from kfpn.evaluation.source_pass import SourcePass
from kfpn.inference.evaluate import open_evaluation
from kfpn.inference.evaluation_request import EvaluationRequest
from kfpn.modeling.fast_rcnn import proposals_model
from kfpn.modeling.submodels import build_submodels
from kfpn.runs.workdir import Workdir
from tests.eager import eagerly
from tests.modeling import tiny

NAMES = ("ant", "bee", "cat")
CONFIG = Config(data="coco:seen.json", val_data="unseen", batch_size=2, input=InputConfig(64, 96), model=tiny.config())


@pytest.fixture(scope="module", autouse=True)
def eager():
    with eagerly():
        yield


def source(name="unseen", class_names=NAMES):
    sizes = ((64, 64), (32, 48), (64, 90))
    records = [
        Record(
            tiny.image(*size, seed=i), i, *size, np.array([[4, 4, 30, 40]], np.float32), np.array([i % 2], np.int32),
            np.zeros(1, bool), np.array([26 * 36], np.float32), f"{i}",
        )
        for i, size in enumerate(sizes)
    ]  # fmt: skip
    return IterableSource(records, class_names, name=name)


def save_run(folder, **changes):
    """Writes a work directory with random weights. Its detector has detections of high and low scores."""
    keras.utils.set_random_seed(0)
    submodels = build_submodels(CONFIG.model)
    tiny.shake(submodels.weights_model)
    workdir = Workdir(folder)
    workdir.path.mkdir()
    workdir.prepare(dataclasses.replace(CONFIG, **changes), NAMES, (1, 2, 3), "by hand")
    workdir.save_weights(submodels.weights_model)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def opened(monkeypatch):
    """Returns a list that gets the name and split of all data that is opened."""
    calls = []

    def open_source(data, split, *_):
        calls.append((data, split))
        return source() if isinstance(data, str) else data

    monkeypatch.setattr(kfpn.data.formats, "open_source", open_source)
    return calls


def test_the_figures_are_those_of_the_detector_on_the_runs_validation_data(run, opened):
    figures = kfpn.evaluate(run)
    assert opened == [("unseen", "validation")]
    assert list(figures) == [*FIGURES, "per_class"]
    model = kfpn.load_detector(run, padded=True)
    assert figures == evaluate_source(model, SourcePass(source(), CONFIG, progress=False), NAMES)[0]


def test_other_data_can_be_given_by_name_or_as_a_source(run, opened):
    by_name = kfpn.evaluate(run, "voc:there", split="test", batch_size=1)
    assert opened == [("voc:there", "test")]
    assert kfpn.evaluate(run, source("mine"), batch_size=1) == by_name


def test_proposals_and_an_image_pyramid_are_measured_when_asked_for(run):
    figures = kfpn.evaluate(run, source(), scales=(64, 96), flip=True, proposals=True)
    assert list(figures) == [*FIGURES, "per_class", "image_pyramid", "proposals"]
    assert (figures["image_pyramid"]["scales"], figures["image_pyramid"]["passes"]) == ([64, 96], 4)
    assert list(figures["proposals"]) == list(RECALLS)
    model = proposals_model(kfpn.load_submodels(run), CONFIG.model)
    assert figures["proposals"] == pytest.approx(evaluate_proposals(model, source(), CONFIG, progress=False), abs=1e-6)


def test_measure_returns_the_figures_and_the_detections(run):
    evaluation = open_evaluation(EvaluationRequest(run, source()))
    figures, detections = evaluation.measure()
    assert figures == kfpn.evaluate(run, source())
    assert sorted(row["image_id"] for row in detections) == [0, 1, 2]
    assert all(len(row["boxes"]) == len(row["labels"]) > 0 for row in detections)


def test_the_command_writes_the_same_figures(run, opened, tmp_path, capsys):
    path = tmp_path / "figures.json"
    args = ["evaluate", "--workdir", str(run), "--scales", "64,96", "--proposals", "--json", str(path)]
    assert cli.main(args) == 0
    written, figures = json.loads(path.read_text()), kfpn.evaluate(run, scales=(64, 96), proposals=True)
    # The measured times differ from run to run.
    del written["image_pyramid"], figures["image_pyramid"]
    assert written == figures
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("unseen: 3 images of 48..90 x 32..64 pixels, 3 classes, 3 objects")
    assert lines[-2].startswith("image pyramid: 2 passes (64, 96), ")
    assert lines[-1].startswith("proposals: AR@100 ")


def test_a_run_with_fixed_proposals_is_evaluated_with_them(tmp_path):
    data = source()
    boxes, scores = np.array([[4, 4, 30, 40]], np.float32), np.ones(1, np.float32)
    rows = [{"image_id": i, "boxes": boxes, "scores": scores} for i in range(3)]
    write_proposals(tmp_path / "kept.npz", [collect_proposals(data, rows)])
    run = save_run(tmp_path / "run", proposals=str(tmp_path / "kept.npz"))
    assert list(kfpn.evaluate(run, data)) == [*FIGURES, "per_class"]
    with pytest.raises(ValueError, match=r"proposals must be of other, got .*kept.npz' with those of unseen"):
        kfpn.evaluate(run, source("other"))
    for arguments in ({"proposals": True}, {"scales": (64,)}, {"flip": True}):
        with pytest.raises(
            ValueError, match=r"proposals, scales, flip and tiles must be left out for .*run, which was trained"
        ):
            kfpn.evaluate(run, data, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workdir": "nope"}, "workdir must be a folder, got 'nope', which does not exist"),
        ({"data": "coco"}, "data must be shapes"),
        ({"data": [1]}, "data must be the name of a data set or a source"),
        ({"scales": (64, 64)}, "scales must differ from each other, got 64,64"),
        ({"scales": "64,96"}, r"scales must be a sequence of integers, like \(480, 640, 800\), got '64,96'"),
        ({"scales": 64}, "scales must be a sequence of integers"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"data": source(class_names=("ant", "dog"))}, r"classes must be among those of the model \(ant, bee, cat\)"),
    ],
)
def test_the_error_for_a_wrong_argument_is_one_sentence(run, changes, message):
    arguments = {"workdir": run, "data": source(), **changes}
    with pytest.raises(ValueError, match=message):
        kfpn.evaluate(**arguments)


def test_evaluating_a_run_without_validation_data_is_refused(tmp_path):
    run = save_run(tmp_path / "run", val_data=None)
    with pytest.raises(ValueError, match=r"coco:seen.json has no validation split: say what to evaluate on"):
        kfpn.evaluate(run)
    moved = save_run(tmp_path / "moved", val_data="coco:gone/a.json")
    with pytest.raises(ValueError, match=r"gone.*: these are the run's own data; --data names other ones"):
        kfpn.evaluate(moved)


def test_a_limit_above_100_adds_the_figures_at_it_and_the_line_of_a_limit_that_cuts_names_the_option(
    run, opened, tmp_path, capsys
):
    path = tmp_path / "figures.json"
    assert cli.main(["evaluate", "--workdir", str(run), "--max-detections", "150", "--json", str(path)]) == 0
    figures, said = json.loads(path.read_text()), capsys.readouterr().out
    assert [figures[name] for name in FIGURES] != [None] * 12
    assert {"AP@150", "AP50@150", "AP75@150", "AR@150"} < set(figures)
    assert "AP@150" in said
    assert "as many as model.max_detections" not in said
    assert cli.main(["evaluate", "--workdir", str(run)]) == 0
    start = "3 of 3 images have 20 detections, as many as model.max_detections allows; most are of low score, so this is no fault "
    end = "unless an image has nearly as many objects: then --max-detections allows more"
    assert start + end in capsys.readouterr().out.splitlines()


def test_best_thresholds_are_printed_kept_and_used(opened, tmp_path, capsys):
    folder, pictures = save_run(tmp_path / "run"), tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(tiny.image(64, 64, seed=0)).save(pictures / "0.png")
    path = tmp_path / "figures.json"
    assert cli.main(["evaluate", "--workdir", str(folder), "--best-thresholds", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(f"best threshold of each class, kept in {folder / 'thresholds.json'}:")
    assert [line.split()[0] for line in lines[start + 1 : start + 5]] == ["class", *NAMES]
    rows = json.loads(path.read_text())["thresholds"]
    assert [row["name"] for row in rows] == list(NAMES)
    assert [row["objects"] for row in rows] == [2, 1, 0]
    assert rows[2]["threshold"] == 0.5
    assert lines[start + 5].endswith("right detections: " + ", ".join(row["name"] for row in rows if row["f1"] is None))

    model = kfpn.load_detector(folder)
    assert model.thresholds == tuple(row["threshold"] for row in rows)
    (everything,), (best,), (usual,) = (
        kfpn.predict(model, pictures / "0.png", min_score=least) for least in (0.0, "best", None)
    )
    least = np.array(model.thresholds)[everything.labels]
    assert usual.scores.tolist() == best.scores.tolist() == everything.scores[everything.scores >= least].tolist()

    command = ["predict", str(pictures), "--workdir", str(folder), "--output", str(tmp_path / "out")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("each class has its own least score, ")
    assert f"objects: {len(best)}; images: 1 of 1" in said
    assert cli.main([*command, "--min-score", "0"]) == 0
    said = capsys.readouterr()
    assert f"objects: {len(everything)}; images: 1 of 1" in said.out
    assert "least score" not in said.out
    assert "cut by model.max_detections: 1 of 1 images" in said.err


def test_a_detector_without_thresholds_has_one_score_for_all(run, tmp_path, capsys):
    model = kfpn.load_detector(run)
    with pytest.raises(ValueError, match=r"got 'best': kfpn evaluate --workdir WORKDIR --best-thresholds makes them"):
        kfpn.predict(model, tiny.image(64, 64), min_score="best")
    with pytest.raises(ValueError, match=r"min_score must lie in 0..1 or be 'best' or None, got 'good'"):
        kfpn.predict(model, tiny.image(64, 64), min_score="good")


def test_thresholds_travel_with_the_file_of_a_model(run, tmp_path):
    model = kfpn.load_detector(run)
    model.thresholds = (0.25, 0.5, 0.75)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").thresholds == (0.25, 0.5, 0.75)
