import dataclasses
import hashlib
import http.server
import re
import socket
import threading

import pytest

from kfpn.weights import pretrained
from kfpn.weights.pretrained import Pretrained, fetch, find_pretrained, list_pretrained

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers /good with DATA, /short with half of it, /wrong with a web page, and everything else with 404."""

    def do_GET(self):
        self.server.asked.append(self.path)
        body = {"/good.pkl": DATA, "/short.pkl": DATA[:5000], "/wrong.pkl": b"<html>Sign in</html>"}.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA) if self.path == "/short.pkl" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        server.root = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def know(monkeypatch):
    """Returns a function that adds a checkpoint to the known ones, by default with its SHA-256 and size."""

    def know(url, name="test:model", **fields):
        fields = {"sha256": SHA256, "size": len(DATA), **fields}
        known = Pretrained(name, url, box_ap=None, licence="MIT", what="a test", **fields)
        monkeypatch.setattr(pretrained, "TABLE", (*pretrained.TABLE, known))
        return known

    return know


def refusal(*args):
    with pytest.raises(ValueError, match=r".") as caught:
        fetch(*args)
    return str(caught.value)


# The table


def test_names_and_file_names_are_unique():
    table = list_pretrained()
    assert len({known.name for known in table}) == len(table)
    assert len({known.file_name.lower() for known in table}) == len(table)
    assert len({known.url for known in table}) == len(table)


@pytest.mark.parametrize("known", list_pretrained(), ids=lambda known: known.name)
def test_an_entry_has_a_well_formed_name_address_and_hash(known):
    assert known.url.startswith("https://")
    assert re.fullmatch(r"(torchvision|detectron2|keras):[\w-]+", known.name)
    assert known.file_name == known.name.replace(":", "_") + known.url[known.url.rindex(".") :]
    assert known.sha256 is None or re.fullmatch(r"[0-9a-f]{8}([0-9a-f]{56})?", known.sha256)
    assert known.md5 is None or re.fullmatch(r"[0-9a-f]{6}([0-9a-f]{26})?", known.md5)
    assert known.size is None or 40e6 < known.size < 300e6
    assert (known.box_ap is not None) == ("rcnn" in known.name)
    assert (known.mask_ap is not None) == ("mask" in known.name) == ("Mask R-CNN" in known.what)
    assert known.cascade == ("cascade" in known.name) == known.what.startswith("Cascade ")
    assert "\n" not in known.what
    # The first digits of the hash stand in the name of the maker's file.
    if known.name.startswith("torchvision:"):
        assert known.url.endswith(f"-{known.sha256[:8]}.pth")
    if "/model_final_" in known.url:
        assert known.url.endswith(f"/model_final_{known.md5}.pkl")


def test_the_hashes_of_keras_are_those_of_keras_applications():
    resnet = pytest.importorskip("keras.src.applications.resnet")
    for known in list_pretrained():
        if known.name.startswith("keras:"):
            assert known.md5 == resnet.WEIGHTS_HASHES[known.name.removeprefix("keras:")][1]
            assert known.url.startswith(resnet.BASE_WEIGHTS_PATH)


def test_find_returns_the_entry_of_a_name():
    known = find_pretrained("torchvision:fasterrcnn_resnet50_fpn_coco")
    assert known.box_ap == 37.0
    assert known.sha256.startswith("258fb6c6")


def test_detectors_with_masks_have_their_mask_ap_and_lie_among_detectron2s_segmentation():
    known = find_pretrained("torchvision:maskrcnn_resnet50_fpn_coco")
    assert (known.box_ap, known.mask_ap, known.md5) == (37.9, 34.6, None)
    known = find_pretrained("detectron2:mask_rcnn_R_50_FPN_3x")
    assert (known.box_ap, known.mask_ap, known.what) == (41.0, 37.2, "Mask R-CNN R-50-FPN-3x, COCO train2017")
    assert known.url.endswith("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl")


def test_the_error_for_an_unknown_name_gives_the_nearest_one():
    with pytest.raises(
        ValueError, match=r"got 'detectron2:faster_rcnn_R50_FPN_3x'; did you mean 'detectron2:faster_rcnn_R_50_FPN_3x'"
    ):
        find_pretrained("detectron2:faster_rcnn_R50_FPN_3x")


def test_the_error_for_an_unknown_name_lists_all_if_none_is_near():
    with pytest.raises(
        ValueError, match=r"got 'xyz'; known are torchvision:fasterrcnn_resnet50_fpn_coco, .*keras:resnet152"
    ):
        find_pretrained("xyz")


# Downloading


@pytest.mark.parametrize(
    "hashes",
    [{}, {"sha256": SHA256[:8]}, {"sha256": None, "md5": MD5}, {"sha256": None, "md5": MD5[:6], "size": None}],
    ids=["sha256", "sha256 prefix", "md5", "md5 prefix"],
)
def test_a_file_is_downloaded_once(tmp_path, server, know, hashes):
    know(f"{server.root}/good.pkl", **hashes)
    path = fetch("test:model", tmp_path / "cache")
    assert path == tmp_path / "cache" / "test_model.pkl"
    assert path.read_bytes() == DATA
    assert fetch("test:model", tmp_path / "cache") == path
    assert server.asked == ["/good.pkl"]
    assert list(path.parent.iterdir()) == [path]


def test_the_cache_is_that_of_keras(tmp_path, server, know, monkeypatch):
    know(f"{server.root}/good.pkl")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert fetch("test:model") == tmp_path / "keras" / "kfpn" / "test_model.pkl"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert fetch("test:model") == tmp_path / "home" / ".keras" / "kfpn" / "test_model.pkl"


def test_a_file_that_was_put_into_the_cache_by_hand_needs_no_network(tmp_path, know):
    known = know("http://127.0.0.1:9/good.pkl")
    (tmp_path / known.file_name).write_bytes(DATA)
    assert fetch("test:model", tmp_path) == tmp_path / known.file_name


def test_a_file_of_another_hash_in_the_cache_is_replaced(tmp_path, server, know):
    known = know(f"{server.root}/good.pkl", size=None)
    (tmp_path / known.file_name).write_bytes(DATA[:-1])
    assert fetch("test:model", tmp_path).read_bytes() == DATA


@pytest.mark.parametrize(("fields", "got"), [({"sha256": "0" * 64}, SHA256), ({"sha256": None, "md5": "0" * 32}, MD5)])
def test_a_wrong_hash_is_an_error_and_nothing_is_kept(tmp_path, server, know, fields, got):
    know(f"{server.root}/good.pkl", **fields)
    message = refusal("test:model", tmp_path)
    assert f"{server.root}/good.pkl is not the file that was expected, and was removed" in message
    assert f"{got}, expected 0000" in message
    assert not list(tmp_path.iterdir())


def test_the_error_for_a_wrong_hash_prefix_says_that_it_is_a_prefix(tmp_path, server, know):
    know(f"{server.root}/good.pkl", sha256="00000000")
    assert f"has the sha256 {SHA256}, expected one that begins with 00000000" in refusal("test:model", tmp_path)


def test_a_page_instead_of_the_file_is_an_error(tmp_path, server, know):
    know(f"{server.root}/wrong.pkl")
    assert f"has 20 bytes, expected {len(DATA)}" in refusal("test:model", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_download_that_breaks_off_is_not_kept(tmp_path, server, know):
    know(f"{server.root}/short.pkl", sha256=None, size=None)
    assert f"downloading {server.root}/short.pkl failed" in refusal("test:model", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_error_for_a_missing_file_says_where_to_put_it(tmp_path, server, know):
    know(f"{server.root}/gone.pkl")
    message = refusal("test:model", tmp_path)
    assert f"downloading {server.root}/gone.pkl failed" in message
    assert "404" in message
    assert message.endswith(f"put the file ({len(DATA)} bytes) at {tmp_path / 'test_model.pkl'}")
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_message_says_where_to_put_the_file(tmp_path, know):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        know(f"http://127.0.0.1:{closed.getsockname()[1]}/good.pkl", size=None)
        message = refusal("test:model", tmp_path)
    assert "good.pkl failed" in message
    assert message.endswith(f"Without a network put the file at {tmp_path / 'test_model.pkl'}")


def test_without_a_network_a_damaged_file_is_kept_and_named(tmp_path, know):
    known = know("http://127.0.0.1:9/good.pkl")
    path = tmp_path / known.file_name
    path.write_bytes(DATA[:-1])
    assert refusal("test:model", tmp_path).endswith(f"{path} is there, but has 10239 bytes, expected 10240")
    assert path.read_bytes() == DATA[:-1]


def test_the_hash_of_a_file_without_a_known_hash_is_printed(tmp_path, server, know, capsys):
    know(f"{server.root}/good.pkl", sha256=None)
    fetch("test:model", tmp_path)
    assert f"kfpn: no hash of test:model is known; the SHA-256 of what came is {SHA256}\n" in capsys.readouterr().out


def test_a_folder_that_is_a_file_is_refused(tmp_path, know):
    know("http://127.0.0.1:9/good.pkl")
    (tmp_path / "file").write_bytes(b"")
    assert refusal("test:model", tmp_path / "file").startswith(f"folder must be writable, got {tmp_path / 'file'} (")


def test_an_unknown_name_is_refused_before_anything_is_written(tmp_path):
    assert "did you mean 'keras:resnet50'" in refusal("keras:resnet5", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_an_entry_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        list_pretrained()[0].url = "http://elsewhere"


@pytest.mark.parametrize(
    ("schedule", "figures", "place"),
    [
        ("1x", (42.1, 36.4), "138602847/model_final_e9d89b.pkl"),
        ("3x", (44.3, 38.5), "144998488/model_final_480dd8.pkl"),
    ],
)
def test_the_cascades_have_the_figures_and_addresses_of_detectron2s_zoo(schedule, figures, place):
    known = find_pretrained(f"detectron2:cascade_mask_rcnn_R_50_FPN_{schedule}")
    assert (known.box_ap, known.mask_ap) == figures
    assert known.what == f"Cascade Mask R-CNN R-50-FPN-{schedule}, COCO train2017"
    assert known.url.endswith(f"detectron2/Misc/cascade_mask_rcnn_R_50_FPN_{schedule}/{place}")
