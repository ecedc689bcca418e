"""Serves the demo, and uses it in a browser as people do."""

import io
import json
import re
import socket
import types
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tests.browser import driven_browser

pytest.importorskip("gradio", reason="needs the extra demo: pip install 'kfpn[demo]'")

from kfpn.config.run import Config
from kfpn.demo.demo_detector import DemoDetector
from kfpn.demo.demo_server import free_port, served_demo
from kfpn.inference.inspect_pyramid import visualize_images
from kfpn.inference.predict import predict
from kfpn.runs.load import load_submodels
from kfpn.runs.workdir import Workdir

SECONDS = 60_000  # milliseconds: for the first picture the detector is compiled


@pytest.fixture(scope="module")
def browser():
    with driven_browser() as started:
        started.contexts  # noqa: B018
        yield started


@pytest.fixture(scope="module")
def demo(browser, small_workdir):
    """Serves the page; returns its address, the detector, the paths it has looked at, and the hosts that were spoken to."""
    detector, looked, hosts = DemoDetector(small_workdir), [], set()
    look, connect = detector.look, socket.socket.connect
    detector.look = lambda path: (looked.append(path), look(path))[1]

    def connect_and_note(self, address):
        hosts.add(address[0] if isinstance(address, tuple) else "a socket of this machine")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_and_note)
        with served_demo(detector, "127.0.0.1", free_port("127.0.0.1", 0), 0.5) as address:
            yield types.SimpleNamespace(address=address, detector=detector, looked=looked, hosts=hosts)


@pytest.fixture
def page(browser, demo):
    """Returns the page, anew; `page.said` are the console's messages, `page.asked` the addresses of all requests."""
    page = browser.new_page(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    page.set_default_timeout(SECONDS)
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(demo.address)
    page.wait_for_selector("#least")
    yield page
    page.close()


def drop(page, paths):
    page.set_input_files("#files input[type=file]", paths)


def counts(page):
    """Returns how many detections are shown, and of how many."""
    return tuple(int(number) for number in re.findall(r"\d+", page.inner_text("#count")))


def wait_for_counts(page, shown, everything):
    text = f"{shown} of {everything} detections"
    page.wait_for_function("text => document.querySelector('#count').innerText.includes(text)", arg=text)


def set_score(page, score):
    page.fill("#least input[type=number]", f"{score}")
    page.keyboard.press("Tab")


def rows_of(found, least):
    return [[name, f"{score:.3f}"] for name, score in zip(found.names, found.scores, strict=True) if score >= least]


def table(page, count):
    """Returns the rows of the table, once it has so many: it is drawn after the count is."""
    page.wait_for_function(
        "count => document.querySelectorAll('#table [role=row][data-index]').length === count", arg=count
    )
    return page.eval_on_selector_all(
        "#table [role=row][data-index]",
        "rows => rows.map(row => [...row.querySelectorAll('[role=gridcell]')].map(cell => cell.innerText.trim()))",
    )


def saved(page, button):
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, open(download.value.path(), "rb").read()


def test_pictures_in_boxes_out_and_the_slider_and_the_classes_choose(page, demo, small_workdir, scenes):
    first, second = predict(small_workdir, scenes, min_score=0.0)
    demo.looked.clear()
    drop(page, scenes)
    shown = rows_of(first, 0.5)
    wait_for_counts(page, len(shown), len(first.scores))
    assert [[row[0], f"{float(row[1]):.3f}"] for row in table(page, len(shown))] == shown
    page.wait_for_function("() => document.querySelector('#picture img').naturalWidth === 640")
    assert len(demo.looked) == 2
    before = page.get_attribute("#picture img", "src")
    set_score(page, 0.3)
    more = rows_of(first, 0.3)
    assert len(more) > len(shown)
    wait_for_counts(page, len(more), len(first.scores))
    page.wait_for_function("before => document.querySelector('#picture img').src !== before", arg=before)
    page.click("#shown input")
    page.click("text=second.png >> visible=true")
    wait_for_counts(page, len(rows_of(second, 0.3)), len(second.scores))
    name = second.names[0]
    page.click("#classes input")
    page.click(f"ul[role=listbox] >> text={name}")
    chosen = [
        float(score) for score, one in zip(second.scores, second.names, strict=True) if one == name and score >= 0.3
    ]
    assert 0 < len(chosen) < len(rows_of(second, 0.3))
    wait_for_counts(page, len(chosen), len(second.scores))
    file_name, content = saved(page, "#save-rows")
    assert file_name == "detections.json"
    rows = json.loads(content)
    assert {row["category_name"] for row in rows} == {name}
    assert [row["score"] for row in rows if row["file_name"] == "second.png"] == chosen
    assert {row["image_id"] for row in rows if row["file_name"] == "second.png"} == {2}
    file_name, content = saved(page, "#save-picture")
    assert file_name == "second_detections.png"
    assert Image.open(io.BytesIO(content)).size == (192, 192)
    assert len(demo.looked) == 2  # the network did not run again
    assert page.said == []


def test_a_broken_and_a_huge_file_are_named_and_the_others_go_on(page, demo, scenes, bad_files):
    drop(page, [bad_files[0], scenes[0], bad_files[1]])
    page.wait_for_selector("#errors textarea")
    _, expected = demo.detector.look_at_all(bad_files, {})
    assert page.input_value("#errors textarea").splitlines() == expected
    page.wait_for_selector("#picture img")
    assert counts(page)[1] > 0


def test_the_tab_of_the_pyramid_shows_what_visualize_draws(page, small_workdir, scenes, tmp_path):
    drop(page, scenes[:1])
    page.wait_for_selector("#picture img")
    page.click("button[role=tab]:has-text('Pyramid')")
    source = page.wait_for_selector("#pyramid img").get_attribute("src")
    run = Workdir(small_workdir)
    config: Config = run.read_config()
    visualize_images(load_submodels(run), config, run.read_classes()[0], {scenes[0]: tmp_path / "page.png"}, 0.5)
    with urllib.request.urlopen(source) as answer:
        shown = np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))
    np.testing.assert_array_equal(shown, np.asarray(Image.open(tmp_path / "page.png").convert("RGB")))


def test_the_camera_takes_a_picture(page, demo):
    demo.looked.clear()
    page.click("button[role=tab]:has-text('Camera')")
    page.click("#camera [title='grant webcam access'] button")
    page.wait_for_function("document.querySelector('#camera video')?.readyState >= 3")
    page.click("#camera button[aria-label='capture photo']")
    page.wait_for_selector("#picture img")
    assert [path.name for path in demo.looked] == ["camera.png"]
    assert page.input_value("#shown input") == "camera.png"


def test_nothing_is_asked_of_other_machines_and_nothing_can_be_sent_to_them(page, demo, scenes):
    drop(page, scenes[:1])
    page.wait_for_selector("#picture img")
    assert len(page.asked) > 10
    assert [url for url in page.asked if not url.startswith((demo.address, "blob:", "data:"))] == []
    assert demo.hosts <= {"127.0.0.1", "a socket of this machine"}
    refused = page.evaluate("fetch('https://example.com/').then(() => 'sent', error => error.message)")
    assert refused == "Failed to fetch"
    assert any("Content Security Policy" in line for line in page.said)


def test_a_file_that_was_not_uploaded_is_not_read(demo, scenes):
    config = json.load(urllib.request.urlopen(f"{demo.address}config"))
    index = next(one["id"] for one in config["dependencies"] if one["api_name"] == "look")
    foreign = {"path": str(scenes[0]), "meta": {"_type": "gradio.FileData"}}
    request = {"data": [[foreign], None, None, None], "fn_index": index, "session_hash": "stranger"}
    demo.looked.clear()
    asked = urllib.request.Request(
        f"{demo.address}gradio_api/queue/join", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(asked)
    with urllib.request.urlopen(f"{demo.address}gradio_api/queue/data?session_hash=stranger") as events:
        answers = [json.loads(line[6:]) for line in events.read().decode().splitlines() if line.startswith("data: ")]
    (done,) = [answer for answer in answers if answer["msg"] == "process_completed"]
    assert not done["success"]
    assert demo.looked == []
