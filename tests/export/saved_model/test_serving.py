"""Tests the client and raw requests with the stand-in for TF Serving, over both protocols."""

import base64
import importlib.util
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kfpn.export.saved_model.serving_files import read_images, write_warmup

pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc as service_pb2_grpc

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CORRUPT = b"\xff\xd8\xff\xe0 not a JPEG after all"
OUTPUTS = {f"detection_{name}" for name in ("boxes", "boxes_pixels", "scores", "classes")} | {"num_detections"}
OF_FILES = OUTPUTS | {"errors"}


def bare(script, *arguments):
    """Returns the command that runs a script where neither kfpn nor Keras can be imported."""
    return [sys.executable, "-I", str(HERE / "bare.py"), str(script), *map(str, arguments)]


@pytest.fixture(scope="module")
def client():
    spec = importlib.util.spec_from_file_location("serving_client", ROOT / "examples" / "serving_client.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["serving_client"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images(photo, encoded, tmp_path_factory):
    """Returns a folder of image files of different sizes and kinds, one of them corrupt."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "wide.jpg").write_bytes(encoded(photo(90, 120), "JPEG", quality=95))
    (folder / "high.png").write_bytes(encoded(photo(100, 70, seed=1)))
    (folder / "corrupt.jpg").write_bytes(CORRUPT)
    return folder


@pytest.fixture(scope="module")
def models(exported, images, tmp_path_factory):
    """Returns a folder with versions 1 and 2. Most requests go to version 2, which has a warm-up file."""
    folder = tmp_path_factory.mktemp("models") / "kfpn"
    for version in ("1", "2"):
        shutil.copytree(exported, folder / version)
    warmup = read_images([images / "wide.jpg"])
    write_warmup(folder / "2", warmup, ("serving_default", "image_tensor", "proposals"), (1, 2), "kfpn")
    return folder


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    """Starts the stand-in with the configuration of docs/serving.md, and returns what it printed when it was ready."""
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    config = text.split("<!-- models.config -->")[1].split("```")[1]
    file = tmp_path_factory.mktemp("config") / "models.config"
    file.write_text(config.replace("/models/kfpn", str(models)))
    with file.with_name("stderr").open("w+") as log:
        command = bare(HERE / "standin_server.py", "--config", file)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        line = process.stdout.readline()
        if not line:
            log.seek(0)
            raise RuntimeError(f"the stand-in did not start:\n{log.read()[-3000:]}")
        yield json.loads(line)
        process.communicate("", timeout=60)
        assert process.returncode == 0


@pytest.fixture
def ask(client, server):
    """Returns the function (protocol, signature, paths, **fields of Target) -> outputs."""

    def ask(protocol, signature, paths, port=None, **fields):
        target = client.Target(f"127.0.0.1:{server[port or protocol]}", **fields)
        return getattr(client, f"ask_{protocol}")(target, signature, *client.read_input(paths, signature))

    return ask


def post(server, where, document):
    """Returns the HTTP status and JSON of a REST request. A `document` that is text is sent as it is."""
    body = (document if isinstance(document, str) else json.dumps(document)).encode()
    url = f"http://127.0.0.1:{server['rest']}/v1/models/{where}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def b64(path):
    return {"b64": base64.b64encode(path.read_bytes()).decode()}


def predict(server, signature="serving_default", outputs=(), version=None, label=None, model="kfpn", **inputs):
    """Returns the PredictResponse of a raw gRPC request."""
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    with grpc.insecure_channel(f"127.0.0.1:{server['grpc']}") as channel:
        return service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)


PIXELS = np.zeros((1, 40, 50, 3), np.uint8)


def test_the_server_has_neither_kfpn_nor_keras(server):
    assert not {"kfpn", "keras", "tf_keras"} & set(server["packages"])


def test_every_request_of_the_warm_up_file_is_replayed(server):
    # One image, three signatures and two batch sizes make six requests. Version 1 has no warm-up file.
    assert server["warmups"] == {"kfpn": {"1": 0, "2": 6}}


def test_both_protocols_give_the_same_detections(ask, images):
    paths = [images / "wide.jpg", images / "high.png"]
    by_grpc, by_rest = ask("grpc", "serving_default", paths), ask("rest", "serving_default", paths)
    assert set(by_grpc) == set(by_rest) == OF_FILES
    assert by_grpc.pop("errors").tolist() == [b"", b""]
    assert by_rest["errors"].tolist() == ["", ""]
    for name, value in by_grpc.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(by_rest[name], value, err_msg=name)
    assert (by_grpc["num_detections"] > 0).all()
    for path, boxes, pixels in zip(paths, by_grpc["detection_boxes"], by_grpc["detection_boxes_pixels"], strict=True):
        width, height = Image.open(path).size
        np.testing.assert_allclose(boxes * [height, width, height, width], pixels, atol=1e-3)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_an_images_pixels_have_the_detections_of_its_file(ask, images, protocol):
    files, pixels = (ask(protocol, name, [images / "high.png"]) for name in ("serving_default", "image_tensor"))
    for name, value in pixels.items():
        np.testing.assert_allclose(files[name], value, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("which", "version"), [({}, 2), ({"version": 1}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2)]
)
def test_a_label_or_a_number_chooses_the_version_and_the_latest_is_the_default(server, which, version):
    assert predict(server, "image_tensor", images=PIXELS, **which).model_spec.version.value == version
    where = "".join(f"/{kind}s/{value}" for kind, value in which.items())
    status, answer = post(server, f"kfpn{where}:predict", {"signature_name": "image_tensor", "inputs": PIXELS.tolist()})
    assert status == 200, answer


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_corrupt_image_fails_alone(ask, client, images, protocol):
    good, corrupt = images / "wide.jpg", images / "corrupt.jpg"
    outputs = ask(protocol, "serving_default", [good, corrupt, good])
    assert [bool(error) for error in outputs["errors"]] == [False, True, False]
    assert "got a JPEG file whose header is damaged at index 1" in str(outputs["errors"][1])
    alone = ask(protocol, "serving_default", [good])
    for name in OUTPUTS:
        assert not outputs[name][1].any(), name
        for row in (0, 2):
            np.testing.assert_allclose(outputs[name][row], alone[name][0], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_request_of_too_many_images_is_refused(ask, client, images, protocol):
    with pytest.raises(client.Failure, match=r"(INVALID_ARGUMENT|HTTP 400): .*at most 32, got 33"):
        ask(protocol, "serving_default", [images / "high.png"] * 33)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ({"images": PIXELS.astype(np.float32)}, "INVALID_ARGUMENT", "uint8"),
        ({"images": PIXELS[0]}, "INVALID_ARGUMENT", "shape"),
        ({"pixels": PIXELS}, "INVALID_ARGUMENT", "Missing but required: {images}"),
        ({"images": PIXELS, "outputs": ["masks"]}, "INVALID_ARGUMENT", "masks"),
        ({"images": PIXELS, "signature": "segment"}, "FAILED_PRECONDITION", '"segment" not found'),
        ({"images": PIXELS, "label": "newest"}, "INVALID_ARGUMENT", "label: newest"),
        ({"images": PIXELS, "version": 7}, "NOT_FOUND", "Specific(kfpn, 7)"),
        ({"images": PIXELS, "model": "nfpk"}, "NOT_FOUND", "Latest(nfpk)"),
    ],
)
def test_a_wrong_grpc_request_is_refused_with_its_code(server, fault, code, words):
    with pytest.raises(grpc.RpcError) as error:
        predict(server, **{"signature": "image_tensor", **fault})
    assert error.value.code().name == code
    assert words in error.value.details()


def test_a_request_by_rows_has_the_detections_of_one_by_columns(server, images):
    first, second = b64(images / "wide.jpg"), b64(images / "high.png")
    _, columns = post(server, "kfpn:predict", {"inputs": {"image_bytes": [first, second]}})
    expected = columns["outputs"]
    for instances in ([first, second], [{"image_bytes": first}, {"image_bytes": second}]):
        status, rows = post(server, "kfpn:predict", {"instances": instances})
        assert status == 200, rows
        for name in OF_FILES:
            assert [row[name] for row in rows["predictions"]] == expected[name], name
    assert post(server, "kfpn:predict", {"inputs": [first, second]})[1] == columns


@pytest.mark.parametrize(
    ("where", "document", "code", "words"),
    [
        ("kfpn:predict", "{", 400, "JSON"),
        ("kfpn:predict", {}, 400, "'instances' key"),
        ("kfpn:predict", {"instances": []}, 400, "at least one"),
        ("kfpn:predict", {"instances": [{"b64": "not base64"}]}, 400, "base64"),
        ("kfpn:predict", {"instances": [{"image": {"b64": ""}}]}, 400, "image_bytes"),
        ("kfpn:predict", {"signature_name": "image_tensor", "instances": [[[[256, 0, 0]]]]}, 400, "256"),
        ("kfpn:predict", {"signature_name": "segment", "instances": [1]}, 400, "segment"),
        ("nfpk:predict", {"instances": [1]}, 404, "nfpk"),
        ("kfpn/versions/7:predict", {"instances": [1]}, 404, "7"),
        ("kfpn/labels/newest:predict", {"instances": [1]}, 400, "newest"),
        ("kfpn:detect", {"instances": [1]}, 400, "Malformed"),
    ],
)
def test_a_wrong_rest_request_is_refused_with_its_status(server, where, document, code, words):
    status, answer = post(server, where, document)
    assert status == code, answer
    assert words in answer["error"]


def test_text_in_place_of_a_file_is_named_in_its_row(server):
    status, answer = post(server, "kfpn:predict", {"instances": ["plain text"]})
    assert status == 200, answer
    assert "got bytes that begin with 70 6c 61 69 6e 20 74 65 at index 0" in answer["predictions"][0]["errors"]
    assert answer["predictions"][0]["num_detections"] == 0


def test_both_protocols_list_the_available_versions(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server['rest']}/v1/models/kfpn", timeout=60) as response:
        listed = json.load(response)["model_version_status"]
    assert [(one["version"], one["state"]) for one in listed] == [("2", "AVAILABLE"), ("1", "AVAILABLE")]
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "kfpn"
    with grpc.insecure_channel(f"127.0.0.1:{server['grpc']}") as channel:
        response = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=60)
    assert [one.version for one in response.model_version_status] == [2, 1]


def test_the_metadata_lists_the_signatures(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server['rest']}/v1/models/kfpn/metadata", timeout=60) as response:
        signatures = json.load(response)["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "image_tensor", "proposals"} <= set(signatures)
    assert signatures["serving_default"]["inputs"]["image_bytes"]["tensor_shape"]["dim"][0]["size"] == "-1"


def test_requests_of_more_than_4_mb_need_a_raised_limit(ask, client, tmp_path):
    Image.new("RGB", (1500, 1000), "white").save(tmp_path / "large.png")
    paths = [tmp_path / "large.png"]  # 4.5 MB as pixels
    assert set(ask("grpc", "image_tensor", paths)) == OUTPUTS
    with pytest.raises(client.Failure, match=r"--max-message-mb.*RESOURCE_EXHAUSTED"):
        ask("grpc", "image_tensor", paths, max_message_mb=4)
    with pytest.raises(client.Failure, match=r"RESOURCE_EXHAUSTED"):
        ask("grpc", "image_tensor", paths, port="grpc_4mb")
    assert set(ask("grpc", "serving_default", paths, port="grpc_4mb")) == OF_FILES


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_the_client_prints_and_draws_the_detections(client, server, models, images, tmp_path, capsys, protocol):
    paths = [str(images / "wide.jpg"), str(images / "high.png")]
    options = ["--server", f"127.0.0.1:{server[protocol]}", "--protocol", protocol, "--min-score", "0.1"]
    options += ["--classes", str(models / "1" / "assets" / "classes.json"), "--output", str(tmp_path)]
    assert client.main([*paths, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(": ")[0] for line in lines} == set(paths)
    assert {line.split()[1] for line in lines} <= {"ant", "bee", "cat"}
    drawn = np.asarray(Image.open(tmp_path / "high.png").convert("RGB"))
    assert (drawn != np.asarray(Image.open(images / "high.png").convert("RGB"))).any()


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_the_client_names_the_file_that_is_corrupt_and_shows_the_others(client, server, images, capsys, protocol):
    paths = [str(images / "wide.jpg"), str(images / "corrupt.jpg")]
    options = ["--server", f"127.0.0.1:{server[protocol]}", "--protocol", protocol, "--min-score", "0.1"]
    assert client.main([*paths, *options]) == 1
    shown = capsys.readouterr()
    assert {line.split(": ")[0] for line in shown.out.splitlines()} == {paths[0]}
    assert shown.err.startswith(f"{paths[1]}: image_bytes must be JPEG, PNG")


def test_the_client_names_the_files_that_made_the_server_refuse(client):
    paths = [Path(name) for name in "abcd"]
    for message in ("got a TIFF file at index 1, an empty file at index 3]", "got something else at index 1, 3]"):
        assert client.named_indices(message, paths) == f"{message}\nthat is b, d"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--server", "127.0.0.1:9"], "no gRPC server answers at 127.0.0.1:9"),
        (["--server", "127.0.0.1:9", "--protocol", "rest"], "no REST server answers at 127.0.0.1:9"),
        (["--server", "{rest}"], "no gRPC server answers at"),
        (["--server", "{grpc}", "--protocol", "rest"], "no REST server answers at"),
        (["--server", "{grpc}", "--model", "nfpk"], "no such model or version: nfpk"),
        (["--server", "{rest}", "--protocol", "rest", "--label", "a b"], "label: a b"),
        (["--server", "{grpc}", "--classes", "nowhere.json"], "nowhere.json must be"),
    ],
)
def test_the_clients_message_says_what_is_wrong(client, server, images, capsys, options, words):
    options = [option.format(**{name: f"127.0.0.1:{server[name]}" for name in ("grpc", "rest")}) for option in options]
    assert client.main([str(images / "wide.jpg"), *options]) == 1
    assert words in capsys.readouterr().err


def test_the_client_names_a_missing_package(client, images, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    assert client.main([str(images / "wide.jpg")]) == 1
    assert "pip install tensorflow-serving-api, or use --protocol rest" in capsys.readouterr().err


def test_the_client_names_a_file_that_is_missing_and_sizes_that_differ(client, images, capsys):
    assert client.main(["nowhere.jpg"]) == 1
    assert "nowhere.jpg" in capsys.readouterr().err
    assert client.main([*map(str, (images / "wide.jpg", images / "high.png")), "--signature", "image_tensor"]) == 1
    assert "[(90, 120), (100, 70)]" in capsys.readouterr().err
