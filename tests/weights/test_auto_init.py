import dataclasses
import hashlib
import json
import socket
import threading
import types

import pytest

from kfpn.cli import command_line as cli
from kfpn.cli.found_init import with_found_init
from kfpn.config.model import ModelConfig
from kfpn.config.presets import preset
from kfpn.config.run import Config
from kfpn.runs.workdir import Workdir
from kfpn.training.auto_weights import config_with_found_init
from kfpn.training.distribution.cluster import Cluster
from kfpn.weights import auto_init as auto
from kfpn.weights import pretrained
from kfpn.weights.auto_init import auto_init, coco_checkpoints, places_of
from kfpn.weights.pretrained import Pretrained

DATA = b"weights" * 100
CLOSED = "http://127.0.0.1:1/folder/model.pkl"


def entry(url, name="detectron2:faster_rcnn_R_50_FPN_3x", box_ap=40.2):
    return Pretrained(name, url, hashlib.sha256(DATA).hexdigest(), box_ap, "MIT", len(DATA), "a test")


@pytest.fixture(autouse=True)
def empty_machine(monkeypatch, tmp_path):
    """Gives a machine without checkpoints, whose only known one can't be downloaded."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("KERAS_HOME", "TORCH_HOME", "FVCORE_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pretrained, "TABLE", (entry(CLOSED),))


def know(monkeypatch, *entries):
    monkeypatch.setattr(pretrained, "TABLE", entries)


def test_the_detectors_of_a_backbone_come_best_first(monkeypatch):
    monkeypatch.undo()
    names = [known.name for known in coco_checkpoints("resnet50")]
    assert names[0] == "detectron2:faster_rcnn_R_50_FPN_3x"
    assert "torchvision:fasterrcnn_resnet50_fpn_coco" in names
    assert [known.name for known in coco_checkpoints("resnet101")] == ["detectron2:faster_rcnn_R_101_FPN_3x"]
    assert coco_checkpoints("resnet18") == ()


def test_detectors_with_masks_come_first_for_a_network_with_masks_and_are_left_out_for_one_without(monkeypatch):
    monkeypatch.undo()
    names = [known.name for known in coco_checkpoints("resnet50", mask=True)]
    assert names[:2] == ["detectron2:mask_rcnn_R_50_FPN_3x", "detectron2:mask_rcnn_R_50_FPN_1x"]
    assert names[2:4] == ["torchvision:maskrcnn_resnet50_fpn_coco", "detectron2:faster_rcnn_R_50_FPN_3x"]
    assert not any("mask" in known.name for known in coco_checkpoints("resnet50"))


@pytest.mark.parametrize(
    ("words", "asked"),
    [([], False), (["--mask"], True), (["--model.mask"], True), (["--mask", "--no-mask"], False)],
)
def test_the_command_line_looks_for_masks_where_it_turns_them_on(monkeypatch, words, asked):
    seen = []
    monkeypatch.setattr(auto, "auto_init", lambda *args: seen.append(args))
    with_found_init(["train", "--init", "auto", *words])
    assert seen == [("resnet50", "runs/finetune", 0, False, asked, False)]


def test_cascades_come_first_for_a_cascade_with_masks_or_not_and_are_left_out_for_others(monkeypatch):
    monkeypatch.undo()
    for mask in (False, True):
        names = [known.name.partition(":")[2] for known in coco_checkpoints("resnet50", mask, cascade=True)]
        assert names[:2] == ["cascade_mask_rcnn_R_50_FPN_3x", "cascade_mask_rcnn_R_50_FPN_1x"]
        assert names[2] == ("mask" if mask else "faster") + "_rcnn_R_50_FPN_3x"
        assert not any("cascade" in known.name for known in coco_checkpoints("resnet50", mask))
    assert coco_checkpoints("resnet101", cascade=True) == coco_checkpoints("resnet101")


@pytest.mark.parametrize(
    ("words", "asked"), [(["--model.cascade"], True), (["--model.cascade", "--model.no-cascade"], False)]
)
def test_the_command_line_looks_for_a_cascade_where_it_turns_one_on(monkeypatch, words, asked):
    seen = []
    monkeypatch.setattr(auto, "auto_init", lambda *args: seen.append(args))
    with_found_init(["train", "--init", "auto", *words])
    assert [args[-1] for args in seen] == [asked]


@pytest.mark.parametrize("place", range(4), ids=["kfpn", "current folder", "PyTorch", "detectron2"])
def test_a_file_that_lies_on_the_machine_is_taken(place, capsys):
    path = places_of(entry(CLOSED))[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DATA)
    assert auto_init("resnet50", "run") == str(path)
    assert capsys.readouterr().out == f"init auto: detectron2:faster_rcnn_R_50_FPN_3x, {path}\n"


def test_another_file_of_the_name_is_not_taken(caplog):
    places_of(entry(CLOSED))[1].write_bytes(b"x" * len(DATA))
    assert auto_init("resnet50", "run") is None


def test_the_best_one_is_downloaded_where_none_lies_here(monkeypatch, tmp_path):
    (tmp_path / "model.pkl").write_bytes(DATA)
    worse = entry(CLOSED, "detectron2:faster_rcnn_R_50_FPN_1x", 37.9)
    known = entry(f"file://{tmp_path}/model.pkl")
    know(monkeypatch, worse, known)
    found = auto_init("resnet50", "run")
    assert found == str(places_of(known)[0])
    assert places_of(known)[0].read_bytes() == DATA


def test_a_server_that_refuses_is_one_line_and_a_second_entry_is_tried(monkeypatch, tmp_path, caplog):
    assert auto_init("resnet50", "run") is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("init auto: no COCO checkpoint (detectron2:faster_rcnn_R_50_FPN_3x) lies in ")
    assert "(127.0.0.1:1: Connection refused); starts from random weights" in line
    assert "\n" not in line
    (tmp_path / "model.pkl").write_bytes(DATA)
    worse = entry(f"file://{tmp_path}/model.pkl", "detectron2:faster_rcnn_R_50_FPN_1x", 37.9)
    know(monkeypatch, entry(CLOSED), worse)
    assert auto_init("resnet50", "run") == str(places_of(worse)[0])


def test_a_server_that_never_answers_is_given_up_and_asked_once(monkeypatch, caplog):
    monkeypatch.setattr(auto, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        url = f"http://{address}/model.pkl"
        know(monkeypatch, entry(url), entry(url, "detectron2:faster_rcnn_R_50_FPN_1x", 37.9))
        assert auto_init("resnet50", "run") is None
    assert caplog.text.count(address) == 1


def test_a_backbone_without_checkpoints_starts_from_random_weights(caplog):
    assert auto_init("resnet18", "run") is None
    assert "no known COCO checkpoint has the backbone resnet18" in caplog.text


def begin(init):
    workdir = Workdir("run")
    workdir.check_writable()
    workdir.prepare(dataclasses.replace(preset("shapes"), workdir="run", init=init), ("a",), (1,), "by hand")


@pytest.mark.parametrize("init", [None, "/gone.pkl"])
def test_a_run_that_has_begun_does_not_look_again(init, monkeypatch, capsys):
    begin(init)
    monkeypatch.setattr(auto, "_found", lambda backbone, mask: pytest.fail("looked again"))
    assert auto_init("resnet50", "run") == init
    assert capsys.readouterr().out == f"init auto: {init or 'random weights'}, as run/config.json has it\n"
    config = config_with_found_init(dataclasses.replace(preset("shapes"), workdir="run", init="auto"), Cluster())
    assert config.init == init


def test_of_several_workers_the_first_one_looks_and_all_take_its_file(monkeypatch):
    path = places_of(entry(CLOSED))[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    looks, taken = [], {}
    monkeypatch.setattr(auto, "_found", lambda backbone, mask, cascade: looks.append(backbone) or str(path))

    def work(index):
        taken[index] = auto_init("resnet50", "run", index, several=True)

    waiting = threading.Thread(target=work, args=(1,))
    waiting.start()
    work(0)
    waiting.join(20)
    shared = f"run/{path.name}"
    assert (taken, looks) == ({0: shared, 1: shared}, ["resnet50"])
    assert Workdir("run").path.joinpath(path.name).read_bytes() == DATA
    assert json.loads((Workdir("run").path / "init.json").read_text()) == {"init": shared}


def test_workers_whose_first_one_found_nothing_start_from_random_weights():
    assert auto_init("resnet50", "run", 0, several=True) is None
    assert auto_init("resnet50", "run", 1, several=True) is None


def test_a_worker_waits_no_longer_than_it_must(monkeypatch):
    monkeypatch.setattr(auto, "WAIT_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"run/init.json must be written by the first worker"):
        auto_init("resnet50", "run", 1, several=True)


@pytest.mark.parametrize("option", [["--init", "auto"], ["--init=auto"], ["--init", "other.pth", "--init=auto"]])
def test_the_words_of_the_command_get_what_was_found(option, monkeypatch):
    asked = []
    monkeypatch.setattr(auto, "auto_init", lambda *given: asked.append(given) or "found.pkl")
    words = ["train", "--data", "voc:cars", *option, "--steps", "5"]
    assert with_found_init(words) == ["train", "--data", "voc:cars", "--steps", "5", "--init", "found.pkl"]
    assert asked == [("resnet50", "runs/cars", 0, False, False, False)]
    monkeypatch.setattr(auto, "auto_init", lambda *given: None)
    assert with_found_init([*words, "--model.backbone", "resnet101"])[-2:] == ["--model.backbone", "resnet101"]


@pytest.mark.parametrize(
    "words", [["train", "--init", "a.pth"], ["train", "--init", "auto", "--help"], ["evaluate", "--workdir", "auto"]]
)
def test_other_words_stay_as_they_are(words):
    assert with_found_init(words) == words


def test_the_command_goes_on_from_random_weights_and_says_so(monkeypatch, capsys):
    taken = []
    monkeypatch.setattr("kfpn.training.train.train", taken.append)
    assert cli.main(["train", "--data", "shapes", "--init", "auto", "--workdir", "run"]) == 0
    assert taken == [dataclasses.replace(preset("shapes"), workdir="run")]
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "init auto" in line] == said[:1]
    assert said[0].startswith("kfpn: warning: init auto: no COCO checkpoint")


def test_in_python_a_checkpoint_of_another_network_is_left_out(monkeypatch, capsys):
    given = Config(workdir="run", init="auto")
    monkeypatch.setattr("kfpn.training.auto_weights.auto_init", lambda *_: "found.pkl")

    trained = types.SimpleNamespace(model={"backbone": "resnet50", "stride_on": "3x3"})
    monkeypatch.setattr("kfpn.training.auto_weights.read_trained_weights", lambda path: trained)
    assert config_with_found_init(given, Cluster()).init is None
    assert "found.pkl does not fit, it needs stride_on='3x3' (the model has '1x1')" in capsys.readouterr().out
    same = dataclasses.replace(given, model=dataclasses.replace(given.model, stride_on="3x3"))
    assert config_with_found_init(same, Cluster()).init == "found.pkl"
    assert config_with_found_init(dataclasses.replace(given, init=None), Cluster()).init is None


@pytest.mark.parametrize(("channels", "found"), [(None, "found.pkl"), (256, "found.pkl"), (32, None)])
def test_in_python_a_checkpoint_whose_mask_head_has_another_width_is_left_out(monkeypatch, capsys, channels, found):
    config = Config(workdir="run", init="auto", model=ModelConfig(mask=True, mask_channels=channels))
    monkeypatch.setattr("kfpn.training.auto_weights.auto_init", lambda *_: "found.pkl")
    trained = types.SimpleNamespace(model={"mask": True, "mask_channels": 256})
    monkeypatch.setattr("kfpn.training.auto_weights.read_trained_weights", lambda path: trained)
    assert config_with_found_init(config, Cluster()).init == found
    assert ("it needs mask_channels=256 (the model has 32)" in capsys.readouterr().out) == (found is None)
