"""Opens examples/client.html in a browser, and lets it ask the stand-in for TF Serving."""

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kfpn.export.saved_model.write_saved_model import export_saved_model
from tests.browser import driven_browser

pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, to drive a browser")
HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MASKS = """() => shown.found.map(one => {
  const isInside = inside(one, 1), rows = Array.from({length: shown.bitmap.height}, (_, y) => y);
  return rows.map(y => Array.from({length: shown.bitmap.width}, (_, x) => Number(isInside(y, x))));
})"""
"""The masks of all detections, as the page draws them."""


@pytest.fixture(scope="module")
def browser():
    with driven_browser() as started:
        yield started


@pytest.fixture(scope="module")
def model(browser, mask_workdir, tmp_path_factory):
    """Returns the folder of a detector with masks that is served as "kfpn", version 1."""
    return export_saved_model(mask_workdir, tmp_path_factory.mktemp("models") / "kfpn")


@pytest.fixture(scope="module")
def server(model):
    """Starts the stand-in, and returns its ports."""
    command = [sys.executable, "-I", HERE / "bare.py", HERE / "standin_server.py", f"kfpn={model.parent}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line, "the stand-in did not start"
    yield json.loads(line)
    process.communicate("", timeout=60)


@pytest.fixture
def page(browser, server):
    """Returns the page, opened as a file, with the address of the server in it; `page.said` are the console's messages."""
    page = browser.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto((ROOT / "examples" / "client.html").as_uri())
    page.fill("#server", f"127.0.0.1:{server['rest_for_pages']}")
    yield page
    page.close()


@pytest.fixture(scope="module")
def picture(photo, encoded, tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    path.write_bytes(encoded(photo(96, 128)))
    return path


@pytest.fixture(scope="module")
def asked(server, picture):
    """Returns the client of examples/serving_client.py, and what it gets for the picture."""
    spec = importlib.util.spec_from_file_location("client_beside_page", ROOT / "examples" / "serving_client.py")
    client = importlib.util.module_from_spec(spec)
    sys.modules["client_beside_page"] = client  # dataclasses look their module up there
    spec.loader.exec_module(client)
    target = client.Target(f"127.0.0.1:{server['rest']}")
    return client, client.ask_rest(target, "serving_default", *client.read_input([picture], "serving_default"))


def pixels(page):
    """Returns the canvas, (H, W, 3) uint8."""
    height, width, values = page.evaluate(
        "() => { const {height, width} = of('canvas'); return [height, width, [...of('canvas').getContext('2d').getImageData(0, 0, width, height).data]]; }"
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def table(page):
    return [row.split("\t") for row in page.inner_text("#rows").splitlines()]


def test_the_page_shows_the_boxes_and_masks_that_the_python_client_gets(page, picture, asked, model):
    client, outputs = asked
    page.set_input_files("#classes", model / "assets" / "classes.json")
    page.fill("#score", "0")
    page.set_input_files("#picture", picture)
    page.wait_for_selector("#rows tr")
    count = int(outputs["num_detections"][0])
    names = client.read_classes(model / "assets" / "classes.json")
    rows = zip(
        *(outputs[f"detection_{name}"][0, :count] for name in ("classes", "scores", "boxes_pixels")), strict=True
    )
    expected = [[names[int(one)], f"{score:.3f}", *(f"{side:.1f}" for side in box)] for one, score, box in rows]
    assert table(page) == expected
    found = np.array(page.evaluate(MASKS), bool)
    masks = np.stack([client.masks_of(outputs, 0, row, 96, 128) for row in range(count)])
    assert masks.any()
    assert (found != masks).mean() < 1e-4  # a value at the threshold may be rounded to either side
    # A picture of 96 x 128 is drawn five times as large. The slider at its end leaves the picture alone.
    drawn = pixels(page)
    page.fill("#score", "1")
    changed = (pixels(page) != drawn).any(-1)
    enlarged = masks.any(0).repeat(5, axis=0).repeat(5, axis=1)
    assert changed.shape == enlarged.shape
    assert changed[enlarged].mean() > 0.9  # the border of a larger mask is smoother
    assert not changed.all()
    assert page.said == []


def test_the_slider_hides_detections_without_another_request(page, picture):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.fill("#score", "0")
    page.set_input_files("#picture", picture)
    page.wait_for_selector("#rows tr")
    everything = table(page)
    middle = sorted(float(row[1]) for row in everything)[len(everything) // 2]
    page.fill("#score", f"{middle + 0.005:.2f}")
    least = float(page.input_value("#score"))
    assert table(page) == [row for row in everything if float(row[1]) >= least]
    assert page.inner_text("#status").startswith(f"{len(table(page))} of {len(everything)} detections")
    assert 0 < len(table(page)) < len(everything)
    assert len([url for url in requests if url.startswith("http")]) == 1


def says(page, picture, words):
    """Chooses a picture, and waits for an error with these words."""
    page.set_input_files("#picture", picture)
    page.click("#detect")
    sync_api.expect(page.locator("#error")).to_contain_text(words)
    assert not table(page)


def test_errors_say_what_to_do(page, server, picture, photo, encoded, tmp_path):
    webp, broken = tmp_path / "photo.webp", tmp_path / "broken.jpg"
    webp.write_bytes(encoded(photo(96, 128), "WEBP"))
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a JPEG after all")
    says(page, webp, "The server can't read photo.webp: image_bytes must be JPEG")
    says(page, broken, "broken.jpg can't be shown by this browser")
    page.fill("#version", "newest")
    says(page, picture, "(HTTP 400: Unrecognized servable version label: newest)")
    page.fill("#version", "7")
    says(page, picture, "(HTTP 404: Servable not found for request: Specific(kfpn, 7))")
    page.fill("#version", "")
    page.fill("#server", f"http://127.0.0.1:{server['rest']}")
    says(page, picture, "--rest_api_enable_cors_support=true")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        page.fill("#server", f"127.0.0.1:{port}")
        says(page, picture, f"No REST server answers at http://127.0.0.1:{port}")
    page.fill("#server", "ftp://there")
    says(page, picture, 'Server must be an address such as http://localhost:8501, got "ftp://there"')
