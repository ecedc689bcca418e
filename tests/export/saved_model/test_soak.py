"""An export behind the stand-in for TF Serving under load: 8 clients, good and bad files, new versions, cancelled requests.

The number of requests is 10,000, or that of the environment variable KFPN_SOAK_REQUESTS.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")

import grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc as service_pb2_grpc

from tests.export.saved_model.hostile_files import bmp, gif, png

HERE = Path(__file__).parent
REQUESTS = int(os.environ.get("KFPN_SOAK_REQUESTS", "10000"))
CLIENTS = 8
VERSIONS = 4
SLOPE = 1024
"""Bytes a request by which the server may grow after its warm-up."""
CANCELLED = (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)


def request_of(files):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "kfpn"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(np.array(files, object)))
    return request


class Client(threading.Thread):
    """Sends requests of one to three files, and compares each answer with that of each file alone."""

    def __init__(self, number, stub, files, expected):
        super().__init__()
        self.rng, self.stub, self.files, self.expected = np.random.default_rng(number), stub, files, expected
        self.seconds, self.versions, self.cancelled, self.faults, self.answered = [], set(), 0, [], 0

    def run(self):
        for _ in range(REQUESTS // CLIENTS):
            chosen = self.rng.integers(0, len(self.files), self.rng.integers(1, 4))
            try:
                self.ask(chosen, request_of([self.files[i] for i in chosen]))
            except Exception as error:
                self.faults.append(repr(error)[:500])

    def ask(self, chosen, request):
        start, way = time.monotonic(), self.rng.random()
        try:
            if way < 0.02:  # the session is stopped in the middle
                response = self.stub.Predict(request, timeout=float(self.rng.uniform(0.002, 0.1)))
            elif way < 0.04:  # the client goes away
                call = self.stub.Predict.future(request, timeout=120)
                time.sleep(float(self.rng.uniform(0.0, 0.1)))
                call.cancel()
                response = call.result()
            else:
                response = self.stub.Predict(request, timeout=120)
                self.seconds.append(time.monotonic() - start)
            self.compare(chosen, response)
            self.answered += 1
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if way >= 0.04 or (isinstance(error, grpc.RpcError) and error.code() not in CANCELLED):
                raise
            self.cancelled += 1

    def compare(self, chosen, response):
        self.versions.add(response.model_spec.version.value)
        outputs = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
        for row, i in enumerate(chosen):
            error = outputs["errors"][row].decode().replace(f" at index {row}", "")
            assert error == self.expected[i]["errors"], (row, error)
            for name, value in self.expected[i].items():
                if name != "errors":
                    np.testing.assert_allclose(outputs[name][row], value, rtol=1e-3, atol=2e-2, err_msg=name)


@pytest.fixture
def files(photo, encoded):
    """Returns good and bad files of many sizes and kinds; no two good ones have the same answer."""
    sizes = ((96, 128), (128, 96), (60, 50), (300, 400), (500, 90), (700, 600))
    good = [encoded(photo(*size, seed), "JPEG") for seed, size in enumerate(sizes)]
    good += [
        encoded(photo(*size, seed + 10), kind)
        for seed, (size, kind) in enumerate(zip(sizes, ["PNG", "BMP"] * 3, strict=True))
    ]
    bad = [b"", b"text", good[3][:2000], good[6][:500], encoded(photo(64, 64), "WEBP"), png(30_000, 30_000, rows=1)]
    return [*good, *bad, bmp(5000, 5000), gif((6, 4), []), encoded(photo(64, 64), "TIFF")]


@pytest.fixture
def server(exported, tmp_path):
    """Returns the stand-in's process, its gRPC port, and its model's folder, which it looks at every second."""
    folder = tmp_path / "kfpn"
    shutil.copytree(exported, folder / "1")
    command = [sys.executable, "-I", HERE / "bare.py", HERE / "standin_server.py", f"kfpn={folder}", "--follow", "1"]
    with (tmp_path / "stderr").open("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        yield process, json.loads(process.stdout.readline())["grpc"], folder
        process.communicate("", timeout=60)
        assert process.returncode == 0


def resident(process):
    """Returns the bytes that a process has in memory."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_server_under_load_stays_as_it_is(server, files, exported):
    process, port, folder = server
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = service_pb2_grpc.PredictionServiceStub(channel)
        expected = []
        for file in files:
            answer = stub.Predict(request_of([file]), timeout=120).outputs
            expected.append({name: tf.make_ndarray(value)[0] for name, value in answer.items()})
            expected[-1]["errors"] = expected[-1]["errors"].decode().replace(" at index 0", "")
        clients = [Client(number, stub, files, expected) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        memory, loaded = [], 1
        while any(client.is_alive() for client in clients):
            assert process.poll() is None
            done = sum(client.answered + client.cancelled + len(client.faults) for client in clients)
            memory.append((done, resident(process)))
            # Versions come in the first half. The second half shows the slope.
            served = any(loaded in client.versions for client in clients)
            if served and loaded < VERSIONS and done > REQUESTS * loaded / VERSIONS / 2:
                loaded += 1
                shutil.copytree(exported, folder / f"new-{loaded}")
                (folder / f"new-{loaded}").rename(folder / str(loaded))
            time.sleep(0.5)
    report(clients, memory)


def report(clients, memory):
    """Prints the figures of a soak, and asserts those that must hold."""
    seconds = np.sort(np.concatenate([client.seconds for client in clients]))
    faults = [fault for client in clients for fault in client.faults]
    cancelled, versions = sum(client.cancelled for client in clients), set().union(*(c.versions for c in clients))
    answered = sum(client.answered for client in clients)
    done, bytes_ = np.array([row for row in memory if row[0] > REQUESTS / 2], float).T
    slope = np.polyfit(done, bytes_, 1)[0]
    print(
        f"\n{answered} answered, {cancelled} cancelled, {len(faults)} faults; versions {sorted(versions)}; latency median "
        f"{np.median(seconds):.3f} s, 99th percentile {np.quantile(seconds, 0.99):.3f} s; memory {memory[0][1] / 1e6:.0f} MB at "
        f"first, {bytes_[0] / 1e6:.0f} MB half-way, {bytes_[-1] / 1e6:.0f} MB at last, {slope:.0f} bytes a request"
    )
    assert faults == []
    assert answered + cancelled == REQUESTS // CLIENTS * CLIENTS
    if REQUESTS >= 10000:
        assert versions == set(range(1, VERSIONS + 1))
    else:  # there is not the time to load all of them
        assert versions == set(range(1, max(versions) + 1))
        assert len(versions) > 1
    assert cancelled > 0
    assert slope < SLOPE
