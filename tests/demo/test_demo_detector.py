import socket

import numpy as np
import pytest

from kfpn.cli import command_line as cli
from kfpn.cli.demo_command import Demo
from kfpn.data.image import load_picture
from kfpn.demo.demo_detector import DemoDetector, chosen, drawn_to_show
from kfpn.demo.demo_server import free_port, page_address
from kfpn.inference.predict import predict


@pytest.fixture(scope="module")
def detector(small_workdir):
    return DemoDetector(small_workdir)


@pytest.fixture(scope="module")
def found(detector, scenes):
    return detector.look(scenes[0]).detections


def test_a_picture_has_the_detections_of_predict(found, small_workdir, scenes):
    (expected,) = predict(small_workdir, scenes[0], min_score=0.0)
    assert len(found.scores) > 2
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    assert found.names == expected.names


def test_scores_and_classes_choose_detections(found):
    least = float(np.median(found.scores))
    label = int(found.labels[0])
    for kept, expected in (
        (chosen(found, least), found.scores >= least),
        (chosen(found, 0.0, [label]), found.labels == label),
        (chosen(found, [2.0 if one == label else 0.0 for one in range(5)]), found.labels != label),
    ):
        assert 0 < expected.sum() < len(expected)
        np.testing.assert_array_equal(kept.boxes, found.boxes[expected])
        assert kept.names == tuple(name for name, one in zip(found.names, expected, strict=True) if one)


def test_bad_files_have_the_error_of_predict_and_the_others_go_on(
    detector, scenes, bad_files, small_workdir, tmp_path, capsys
):
    pictures, errors = detector.look_at_all([bad_files[0], scenes[1], bad_files[1]], {})
    assert list(pictures) == [scenes[1]]
    assert cli.main(["predict", *map(str, bad_files), "--workdir", str(small_workdir), "--output", str(tmp_path)]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "kfpn: error: " in line]
    assert said == [f"kfpn: error: {path.parent}/{error}" for path, error in zip(bad_files, errors, strict=True)]
    assert errors[0].startswith("broken.jpg: ")
    assert "more pixels than the 178,956,970 that are safe to decode" in errors[1]


def test_a_picture_that_is_known_is_not_looked_at_again(detector, scenes):
    pictures, _ = detector.look_at_all(scenes[:1], {})
    again, _ = detector.look_at_all(scenes, pictures)
    assert again[scenes[0]] is pictures[scenes[0]]


def test_pictures_beyond_the_limit_are_refused(small_workdir, scenes):
    _, errors = DemoDetector(small_workdir, max_pixels=1000).look_at_all(scenes[:1], {})
    assert errors[0].startswith("first.png: is 192 x 192")


@pytest.mark.parametrize(
    ("sides", "shown"), [((192, 96), (640, 320)), ((1000, 800), (1000, 800)), ((1500, 3000), (640, 1280))]
)
def test_a_picture_is_shown_in_a_size_at_which_its_labels_can_be_read(found, sides, shown):
    assert drawn_to_show(found, np.zeros((*sides, 3), np.uint8)).shape == (*shown, 3)


def test_what_is_drawn_lies_over_the_object_in_any_size(found, scenes):
    image = load_picture(scenes[0])
    best = chosen(found, float(found.scores[0]))
    box = best.boxes[0] * 640 / 192
    changed = (drawn_to_show(best, image) != drawn_to_show(chosen(found, 2.0), image)).any(-1)
    rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
    # Above the box, or at its side, stands its text.
    assert rows[-1] + 1 == pytest.approx(box[2], abs=2)
    assert columns[0] == pytest.approx(box[1], abs=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 65536}, "port must lie in 0..65535, got 65536"),
        ({"host": " "}, "host must be a name or an address of this machine, got nothing"),
        ({"min_score": 1.5}, "min_score must lie in 0..1, got 1.5"),
        ({"max_pixels": 0}, "max_pixels must lie in 1..2147483647, got 0"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        Demo("runs/any", **options)


def test_a_port_in_use_and_a_foreign_host_are_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port must be free, got {port}, at which another program listens: give"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", port) == port
    assert free_port("127.0.0.1", 0) > 0
    for host in ("203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(ValueError, match=f"host must be a name or an address of this machine, got '{host}'"):
            free_port(host, 0)


def test_the_demo_without_its_extra_says_how_to_install_it(small_workdir, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["demo", "--workdir", str(small_workdir)]) == 2
    assert "the demo needs Gradio, which is not installed: pip install 'kfpn[demo]'" in capsys.readouterr().err


def test_the_address_is_one_that_a_browser_can_open():
    assert page_address("0.0.0.0", 80) == "http://127.0.0.1:80/"
    assert page_address("::1", 80) == "http://[::1]:80/"
    assert page_address("localhost", 80) == "http://localhost:80/"
