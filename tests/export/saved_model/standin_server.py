"""Stands in for TF Serving: offers its gRPC and REST protocols over a V1 session, in a process without kfpn and Keras.

    python -I bare.py standin_server.py NAME=DIR... [--config FILE] [--port 0] [--rest-port 0] [--cors-port 0]

It loads versions from DIR/<number>/ as `tensorflow_model_server` does: the latest one, or those that `--config`, a
ModelServerConfig, names. It replays assets.extra/tf_serving_warmup_requests, prints one line of JSON with its ports, and
serves until its standard input ends. Error codes, messages and their limits follow TF Serving's sources (predict_util.cc,
server_core.cc, json_tensor.cc, grpc_status_util.cc, http_server.cc). It can't show TF Serving's own batching, its speed and
its use of GPUs.
"""

import argparse
import gc
import json
import re
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import grpc
import tensorflow as tf
from google.protobuf import json_format, text_format
from standin_json import Refused, document_of, fill, invalid
from tensorflow_serving.apis import get_model_metadata_pb2 as metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2 as status_pb2
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

CODES = {code.value[0]: code for code in grpc.StatusCode}
HTTP_STATUS = {"OK": 200, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "NOT_FOUND": 404}
HTTP_STATUS |= {"RESOURCE_EXHAUSTED": 429, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504}
LONGEST_MESSAGE = 1024  # characters of an error's message over gRPC
MOST_WARMUPS = 1000
PREDICT_URL = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:predict")
STATUS_URL = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?")


class Version:
    """Holds one loaded version: a V1 session, as the C++ loader has one, and the signatures."""

    def __init__(self, path, number):
        self.number = number
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        meta_graph = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(path))
        self.signatures = meta_graph.signature_def
        self.warmups = self._warm_up(path / "assets.extra" / "tf_serving_warmup_requests")

    def _warm_up(self, path):
        records = list(tf.compat.v1.io.tf_record_iterator(str(path))) if path.exists() else []
        if len(records) > MOST_WARMUPS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MOST_WARMUPS}) at {path}")
        for record in records:
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                raise Refused("UNIMPLEMENTED", f"Unsupported log_type for warmup: {log.WhichOneof('log_type')}")
            self.predict(log.predict_log.request)
        return len(records)

    def signature(self, name):
        if (name or "serving_default") not in self.signatures:
            raise Refused("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name or "serving_default"]

    def predict(self, request, seconds=None):
        name = request.model_spec.signature_name or "serving_default"
        signature = self.signature(name)
        required, sent = set(signature.inputs), set(request.inputs)
        if required != sent:
            extra, missing = ",".join(sorted(sent - required)), ",".join(sorted(required - sent))
            difference = f"Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
            raise invalid(f"input size does not match signature: {len(sent)}!={len(required)} {difference}")
        for alias in request.output_filter:
            if alias not in signature.outputs:
                raise invalid(f"output tensor alias not found in signature: {alias}")
        aliases = list(request.output_filter) or sorted(signature.outputs)
        feeds = {}
        for alias, tensor in request.inputs.items():
            info = signature.inputs[alias]
            if tensor.dtype != info.dtype:
                expected, got = tf.as_dtype(info.dtype).name, tf.as_dtype(tensor.dtype).name
                raise invalid(f"Expects arg[0] to be {expected} but {got} is provided")
            feeds[info.name] = tensor
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.signature_name = request.model_spec.name, name
        response.model_spec.version.value = self.number
        try:
            feeds = {name: tf.make_ndarray(tensor) for name, tensor in feeds.items()}
            # TF Serving gives the client's deadline to the session, which stops in the middle then.
            options = seconds and tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(1000 * seconds)))
            values = self.session.run([signature.outputs[alias].name for alias in aliases], feeds, options=options)
        except tf.errors.OpError as error:
            # Python's session puts these words before the message. C++ does not.
            message = error.message.removeprefix("Graph execution error:").lstrip()
            raise Refused(CODES[error.error_code].name, message) from error
        except (ValueError, TypeError) as error:  # an input does not fit, for which C++ answers InvalidArgument
            raise invalid(str(error)) from error
        for alias, value in zip(aliases, values, strict=True):
            response.outputs[alias].CopyFrom(tf.make_tensor_proto(value))
        return response


class Models:
    """Holds all models and versions, and finds the one that a request names."""

    def __init__(self, config):
        self.versions, self.labels = {}, {}
        for model in config.model_config_list.config:
            folder = Path(model.base_path)
            numbers = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
            policy = model.model_version_policy
            kept = numbers[-max(1, policy.latest.num_versions) :]
            if policy.WhichOneof("policy_choice") == "specific":
                kept = list(policy.specific.versions)
            elif policy.WhichOneof("policy_choice") == "all":
                kept = numbers
            if not kept:
                raise Refused("NOT_FOUND", f"Could not find any versions of model {model.name} in {folder}")
            self.versions[model.name] = {number: Version(folder / str(number), number) for number in kept}
            self.labels[model.name] = dict(model.version_labels)

    def all_of(self, spec):
        versions = self.versions.get(spec.name)
        if versions is None:
            raise Refused("NOT_FOUND", f"Servable not found for request: Latest({spec.name})")
        if not spec.WhichOneof("version_choice"):
            return list(versions.values())
        number = spec.version.value
        if spec.WhichOneof("version_choice") == "version_label":
            if spec.version_label not in self.labels[spec.name]:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            number = self.labels[spec.name][spec.version_label]
        if number not in versions:
            raise Refused("NOT_FOUND", f"Servable not found for request: Specific({spec.name}, {number})")
        return [versions[number]]

    def version_of(self, spec):
        return max(self.all_of(spec), key=lambda version: version.number)

    def predict(self, request, seconds=None):
        return self.version_of(request.model_spec).predict(request, seconds)

    def follow(self, name, folder, seconds):
        """Loads the latest version whenever a new one appears, and then drops the one before, as TF Serving does."""
        while True:
            time.sleep(seconds)
            latest = max(int(path.name) for path in folder.glob("*") if path.name.isdigit())
            if latest not in self.versions[name]:
                self.versions[name] = {latest: Version(folder / str(latest), latest)}
                gc.collect()

    def status(self, request):
        response = status_pb2.GetModelStatusResponse()
        for version in sorted(self.all_of(request.model_spec), key=lambda version: -version.number):
            status = response.model_version_status.add(version=version.number)
            status.state = status_pb2.ModelVersionStatus.AVAILABLE
            status.status.error_message = ""
        return response

    def metadata(self, request):
        version = self.version_of(request.model_spec)
        response = metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, version.number
        signatures = metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response


def answering(method):
    """Returns the gRPC method that answers with a method of `Models`."""

    def answer(self, request, context):
        try:
            limited = method is Models.predict and context.time_remaining() is not None
            return method(self.models, request, context.time_remaining()) if limited else method(self.models, request)
        except Refused as error:
            message = str(error)
            cut = message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "...TRUNCATED"
            context.abort(grpc.StatusCode[error.code], cut)

    return answer


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self.models = models

    Predict = answering(Models.predict)
    GetModelMetadata = answering(Models.metadata)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models):
        self.models = models

    GetModelStatus = answering(Models.status)


class Rest(BaseHTTPRequestHandler):
    models = None
    headers_of_all: ClassVar[dict[str, str]] = {}

    def do_GET(self):
        self.answer(self.status_or_metadata)

    def do_POST(self):
        self.answer(self.predict)

    def do_OPTIONS(self):
        self.answer(self.preflight)

    def preflight(self):
        if not re.search("https?://", self.headers.get("Origin", "")):
            raise Refused("FAILED_PRECONDITION", "Origin header is missing in CORS preflight")
        return {}

    def answer(self, method):
        try:
            code, document = 200, method()
        except Refused as error:
            code, document = HTTP_STATUS.get(error.code, 500), {"error": str(error)}
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in self.headers_of_all.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def matched(self, pattern, request):
        match = pattern.fullmatch(self.path)
        if not match:
            raise invalid(f"Malformed request: {self.command} {self.path}")
        request.model_spec.name = unquote(match[1])
        if match[2]:
            request.model_spec.version.value = int(match[2])
        elif match[3]:
            request.model_spec.version_label = unquote(match[3])
        return match

    def status_or_metadata(self):
        request = status_pb2.GetModelStatusRequest()
        if self.matched(STATUS_URL, request)[4]:
            metadata = metadata_pb2.GetModelMetadataRequest(model_spec=request.model_spec)
            return json_format.MessageToDict(self.models.metadata(metadata), preserving_proto_field_name=True)
        rows = []
        for version in self.models.status(request).model_version_status:
            ok = {"error_code": "OK", "error_message": ""}
            rows.append({"version": str(version.version), "state": version.State.Name(version.state), "status": ok})
        return {"model_version_status": rows}

    def predict(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = predict_pb2.PredictRequest()
        self.matched(PREDICT_URL, request)
        try:
            document = json.loads(content)
        except ValueError as error:
            raise invalid(f"JSON Parse error: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("signature_name", ""), str):
            raise invalid("JSON must be an object, and 'signature_name' a string value.")
        request.model_spec.signature_name = document.get("signature_name", "")
        version = self.models.version_of(request.model_spec)
        rows = fill(request, document, version.signature(request.model_spec.signature_name))
        return document_of(version.predict(request), rows)

    def log_message(self, *args):
        pass


class RestForPages(Rest):
    """Answers as with `--rest_api_enable_cors_support=true`: pages of other addresses may read it."""

    headers_of_all: ClassVar[dict[str, str]] = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "POST, GET",
        "Access-Control-Allow-Headers": "Content-Type",
    }


def config_of(arguments):
    config = model_server_config_pb2.ModelServerConfig()
    if arguments.config:
        text_format.Parse(Path(arguments.config).read_text(), config)
    for model in arguments.models:
        name, _, folder = model.partition("=")
        config.model_config_list.config.add(name=name, base_path=folder, model_platform="tensorflow")
    return config


def serving(models, port, longest):
    """Starts a gRPC server and returns it with its port. A request has at most `longest` bytes."""
    options = [("grpc.max_receive_message_length", longest), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(models), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="NAME=DIR")
    parser.add_argument("--config")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rest-port", type=int, default=0)
    parser.add_argument(
        "--cors-port", type=int, default=0, help="of a second REST that pages of other addresses may read"
    )
    parser.add_argument("--follow", type=float, metavar="SECONDS", help="look for new versions so often")
    arguments = parser.parse_args()
    try:
        models = Models(config_of(arguments))
    except (Refused, OSError, tf.errors.OpError) as error:
        raise SystemExit(f"standin_server: error: {error}") from error
    # The first server takes requests as long as TF Serving does, the second as long as any gRPC server or proxy by default.
    servers = [serving(models, arguments.port, 2**31 - 1), serving(models, 0, 4 * 2**20)]
    for model in arguments.models if arguments.follow else []:
        name, _, folder = model.partition("=")
        threading.Thread(target=models.follow, args=(name, Path(folder), arguments.follow), daemon=True).start()
    Rest.models = models
    rests = [
        ThreadingHTTPServer(("127.0.0.1", port), answers)
        for port, answers in ((arguments.rest_port, Rest), (arguments.cors_port, RestForPages))
    ]
    for rest in rests:
        threading.Thread(target=rest.serve_forever, daemon=True).start()
    loaded = {name: {n: version.warmups for n, version in all.items()} for name, all in models.versions.items()}
    packages = sorted({name.partition(".")[0] for name in sys.modules})
    ports = {
        "grpc": servers[0][1],
        "grpc_4mb": servers[1][1],
        "rest": rests[0].server_port,
        "rest_for_pages": rests[1].server_port,
    }
    print(json.dumps({**ports, "warmups": loaded, "packages": packages}), flush=True)
    sys.stdin.read()
    for server, _ in servers:
        server.stop(None)
    for rest in rests:
        rest.shutdown()


if __name__ == "__main__":
    main()
