"""Finds what a user names, fetches images from a server of the test's own, and reads ahead."""

import codecs
import contextvars
import http.server
import io
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from kfpn.config.run import InputConfig
from kfpn.inference import image_address, user_inputs
from kfpn.inference.image_address import fetch_image, stem_of_address
from kfpn.inference.user_inputs import UnreadInput, find_inputs, read_ahead, read_inputs
from tests.modeling import tiny

PNG = io.BytesIO()
Image.fromarray(tiny.image(20, 30)).save(PNG, "png")
STOPPED = threading.Event()


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers each path in its own way: with an image, another place, or one of the faults of servers."""

    def do_GET(self):
        content, status, headers = PNG.getvalue(), 200, {}
        kind = self.path.split("?")[0].rsplit("/", 1)[-1]
        if kind == "moved.png":
            content, status, headers = b"", 302, {"Location": "/deep/a.png"}
        elif kind == "circle.png":
            content, status, headers = b"", 302, {"Location": "/circle.png"}
        elif kind == "elsewhere":
            content, status, headers = b"", 302, {"Location": "file:///etc/passwd"}
        elif kind == "missing.png":
            content, status = b"no", 404
        elif kind == "page.png":
            content = b"<!DOCTYPE html><html></html>"
        elif kind == "huge.png":
            headers = {"Content-Length": str(10**12)}
        self.send_response(status)
        for name, value in (
            {"Content-Length": str(len(content))} if kind != "endless.png" else {}
        ).items() | headers.items():
            if name not in headers or value == headers[name]:
                self.send_header(name, value)
        self.end_headers()
        try:
            if kind == "silent.png":
                STOPPED.wait(20)
            elif kind == "endless.png":
                while not STOPPED.wait(0.01):
                    self.wfile.write(b"\0" * 1000)
            else:
                self.wfile.write(content[: len(content) // 2 if kind == "cut.png" else None])
        except OSError:
            pass  # the client has gone

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    STOPPED.set()
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize("path", ["/a.png", "/a b.png?size=2", "/ü.png", "/moved.png"])
def test_an_address_gives_the_bytes_of_its_image(server, path):
    assert fetch_image(server + path) == PNG.getvalue()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing.png", "the server answered 404 Not Found"),
        ("/circle.png", "^can't be fetched: the server answered 302 again and again$"),
        ("/elsewhere", "can't be fetched: the server answered 302 .*not allowed"),
        ("/cut.png", f"the server broke off after {len(PNG.getvalue()) // 2:,} of {len(PNG.getvalue()):,} bytes"),
        ("/huge.png", r"must have at most 100,000,000 bytes to be fetched, got 1,000,000,000,000"),
        ("/silent.png", r"the server was silent for 0\.3 seconds"),
        ("/endless.png", r"must be fetched in 0\.5 seconds, got [\d,]+ bytes in that time: download it"),
    ],
)
def test_what_a_server_does_wrong_is_one_line(server, monkeypatch, path, message):
    monkeypatch.setattr(image_address, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(image_address, "MOST_SECONDS", 0.5)
    with pytest.raises(ValueError, match=message):
        fetch_image(server + path)


def test_more_bytes_than_the_limit_are_not_taken_and_nobody_may_answer(server, monkeypatch):
    monkeypatch.setattr(image_address, "MOST_BYTES", 5000)
    with pytest.raises(ValueError, match="must have at most 5,000 bytes to be fetched, got more: download it"):
        fetch_image(server + "/endless.png")
    with pytest.raises(ValueError, match=r"can't be fetched: .*refused"):
        fetch_image("http://127.0.0.1:1/a.png")
    for address in ("http://", "http://[::1/a.png", "http://127.0.0.1:99999/a.png", "http://user:word@/a.png"):
        with pytest.raises(ValueError, match=r"^can't be fetched: "):
            fetch_image(address)


def test_pictures_of_addresses_have_the_name_of_the_file(server):
    assert stem_of_address("https://example.org/deep/my%20cat.jpg?width=3") == "my cat"
    assert stem_of_address("https://example.org/a%2F..%2F%00b.png") == "_b"
    assert stem_of_address("https://example.org/..") == stem_of_address("https://example.org?a/b") == "image"


def test_images_of_files_and_addresses_are_read_and_faults_are_named(server, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG.getvalue())
    inputs = find_inputs([str(path), f"{server}/page.png", f"{server}/a.png", str(path)])
    assert [one.kind for one in inputs] == ["image", "address", "address"]
    first, fault, last = read_inputs(inputs, InputConfig(64, 96))
    assert isinstance(fault, UnreadInput)
    assert fault.line.startswith(f"{server}/page.png: is a web page")
    assert (first.image_id, last.image_id) == (1, 3)
    np.testing.assert_array_equal(first.pixels, last.pixels)
    np.testing.assert_array_equal(first.pixels, tiny.image(20, 30))


def test_standard_input_lists_names_by_lines_or_zero_bytes(tmp_path, monkeypatch):
    names = [tmp_path / "a 1.png", tmp_path / "b.png"]
    for name in names:
        name.write_bytes(PNG.getvalue())
    lists = [content % tuple(os.fsencode(name) for name in names) for content in (b"%s\r\n\n  \r\n%s", b"%s\0%s\0")]
    for content in (*lists, codecs.BOM_UTF8 + lists[0], lists[0].decode().encode("utf-16")):
        assert [one.name for one in find_inputs(["-"], io.BytesIO(content))] == [str(name) for name in names]
    monkeypatch.setattr("sys.stdin", None)  # it is closed
    for listed in (io.BytesIO(b"\n"), None):
        with pytest.raises(ValueError, match="images must be named on standard input, a line each, got nothing"):
            find_inputs(["-"], listed)


def test_a_folder_without_images_gives_its_videos(tmp_path, caplog):
    pytest.importorskip("av", reason="needs PyAV, the extra video")
    for name in ("b.mp4", "a.mkv", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    both = [("video", str(tmp_path / "a.mkv")), ("video", str(tmp_path / "b.mp4"))]
    for name in (tmp_path, tmp_path / "*", tmp_path / "*.m[kp]*"):
        assert [(one.kind, one.name) for one in find_inputs([str(name)])] == both
    assert f"{tmp_path}: 2 videos; passed over: 1 .txt" in caplog.text
    (tmp_path / "photo.png").write_bytes(PNG.getvalue())
    assert [one.kind for one in find_inputs([str(tmp_path)])] == ["image"]
    with pytest.raises(ValueError, match="must be a pattern of files, got folders alone: name "):
        find_inputs([f"{tmp_path}*"])


def test_videos_without_pyav_and_addresses_that_are_not_of_images_are_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(
        ValueError, match=r'PyAV must be installed for videos, got none .*: pip install "kfpn\[video\]"'
    ):
        find_inputs([str(tmp_path / "a.mp4")])
    with pytest.raises(ValueError, match=r"got the video https://example\.org/a\.mp4\?b: download it"):
        find_inputs(["https://example.org/a.mp4?b"])
    with pytest.raises(ValueError, match="images must be a place on this machine, got the address 'ftp://"):
        find_inputs(["ftp://example.org/a.jpg"])


def test_items_are_made_ahead_in_order_with_the_variables_of_the_caller():
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)
    made, closed = [], []

    def items():
        try:
            for number in range(6):
                made.append((number, threading.current_thread() is threading.main_thread(), variable.get()))
                yield number
            raise OSError("the last one")
        finally:
            closed.append(True)

    got = read_ahead(items(), count=2)
    assert next(got) == 0
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made == [(0, False, 7), (1, False, 7), (2, False, 7)]  # and no more, until the next one is asked for
    assert [next(got) for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(OSError, match="the last one"):
        next(got)
    half = read_ahead(items())
    next(half)
    half.close()
    assert closed == [True, True]


def test_nobody_waits_for_an_item_that_is_under_way_when_the_reading_ends(monkeypatch):
    monkeypatch.setattr(user_inputs, "_LAST_ITEM_SECONDS", 0.0)
    server_answers, closed = threading.Event(), threading.Event()

    def items():
        try:
            yield 1
            server_answers.wait(60)
            yield 2
        finally:
            closed.set()

    got = read_ahead(items())
    assert next(got) == 1
    got.close()  # returns although the second item is not there
    assert not closed.is_set()
    server_answers.set()
    assert closed.wait(60)
