"""Detects objects in image files through TF Serving, over gRPC or REST.

    python serving_client.py photo.jpg other.png --server localhost:8500
    python serving_client.py photo.jpg --protocol rest --label canary --output found --classes classes.json

Prints one line a detection: file, class, score, box (y1 x1 y2 x2 in pixels of the image as displayed). All files go in one request.
Where the model has masks, the pictures in --output show them.
This file stands alone: it needs NumPy and Pillow, and for gRPC `pip install tensorflow-serving-api`; kfpn is not needed.
"""

import argparse
import base64
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageOps

PORTS = {"grpc": 8500, "rest": 8501}
COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


class Failure(Exception):
    """What went wrong, in words for the person who called."""


@dataclass(frozen=True)
class Target:
    """What to ask, and where.

    Attributes:
        server: HOST:PORT.
        model: the server's name for the model.
        version: None for the latest one, or the one that `label` means.
        label: of a version, such as "canary"; None for none.
        timeout: seconds.
        max_message_mb: size that a gRPC message may have; gRPC's own limit for an answer is 4 MB.
    """

    server: str
    model: str = "kfpn"
    version: int | None = None
    label: str | None = None
    timeout: float = 60.0
    max_message_mb: float = 64.0


def ask_grpc(target: Target, signature: str, name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """Runs a signature over gRPC.

    Args:
        target: the server's gRPC port (8500) and model.
        signature: "serving_default", "image_tensor" or "proposals".
        name: of the signature's input.
        value: (B,) of bytes, or (B, H, W, 3) uint8.

    Returns:
        outputs by name, batch first.

    Raises:
        Failure: with what to do about it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise Failure(
            f"gRPC needs tensorflow-serving-api ({error}): pip install tensorflow-serving-api, or use --protocol rest"
        ) from error
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = target.model, signature
    if target.version is not None:
        request.model_spec.version.value = target.version
    if target.label is not None:
        request.model_spec.version_label = target.label
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    largest = int(target.max_message_mb * 2**20)
    options = [("grpc.max_receive_message_length", largest), ("grpc.max_send_message_length", largest)]
    with grpc.insecure_channel(target.server, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            response = stub.Predict(request, timeout=target.timeout)
        except grpc.RpcError as error:
            raise Failure(_grpc_words(target, error.code().name, error.details())) from error
    return {key: tf.make_ndarray(tensor) for key, tensor in response.outputs.items()}


def _grpc_words(target: Target, code: str, details: str) -> str:
    hint = {
        "UNAVAILABLE": f"no gRPC server answers at {target.server}: is it running, and is this its gRPC port "
        f"(8500 by default; 8501 is REST's)?",
        "DEADLINE_EXCEEDED": f"no answer within {target.timeout:g} s: raise --timeout, or export with --warmup, which spares "
        "the first requests the wait",
        "RESOURCE_EXHAUSTED": "a message is too large: raise --max-message-mb here and the limit of what stands between, "
        "or send fewer images at a time",
        "NOT_FOUND": f"the server has no such model or version: {target.model}",
    }.get(code, "the server refused the request")
    return f"{hint} ({code}: {details})"


def ask_rest(target: Target, signature: str, name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """Runs a signature over REST: arguments, result and errors as `ask_grpc`; the port is REST's (8501)."""
    is_text = value.dtype == object
    given = [{"b64": base64.b64encode(one).decode()} for one in value] if is_text else value.tolist()
    which = "" if target.version is None else f"/versions/{target.version}"
    which += "" if target.label is None else f"/labels/{urllib.parse.quote(target.label, safe='')}"
    url = f"http://{target.server}/v1/models/{urllib.parse.quote(target.model, safe='')}{which}:predict"
    body = json.dumps({"signature_name": signature, "inputs": {name: given}}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=target.timeout) as response:
            outputs = json.load(response)["outputs"]
    except urllib.error.HTTPError as error:
        content = error.read().decode(errors="replace")
        try:
            content = json.loads(content)["error"]
        except (ValueError, KeyError, TypeError):
            content = content[:500]
        raise Failure(f"the server refused the request (HTTP {error.code}: {content})") from error
    except TimeoutError as error:
        raise Failure(f"no answer within {target.timeout:g} s: raise --timeout, or export with --warmup") from error
    # At a gRPC port the answer is no HTTP.
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise Failure(
            f"no REST server answers at {target.server}: is it running, and is this its REST port (8501 by default; "
            f"8500 is gRPC's)? ({getattr(error, 'reason', repr(error))})"
        ) from error
    return {key: np.array(column, object if key == "errors" else np.float32) for key, column in outputs.items()}


def read_input(paths: list[Path], signature: str) -> tuple[str, np.ndarray]:
    """Reads image files for a signature.

    Args:
        paths: of images.
        signature: "serving_default" takes the files as they are; "image_tensor" their pixels, all of one size.

    Returns:
        the input's name, and (B,) bytes objects or (B, H, W, 3) uint8.
    """
    try:
        if signature == "serving_default":
            files = np.empty(len(paths), object)
            files[:] = [path.read_bytes() for path in paths]
            return "image_bytes", files
        images = [np.asarray(_opened(path)) for path in paths]
    except OSError as error:
        raise Failure(f"can't read an image: {error}") from error
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise Failure(f"image_tensor takes images of one size in a request, got (height, width) {sorted(sizes)}")
    return "images", np.stack(images)


def _opened(path: Path) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def read_classes(path: Path | None) -> dict[int, str]:
    """Returns category id -> name from the model's assets/classes.json; without the file nothing."""
    if path is None:
        return {}
    try:
        classes = json.loads(path.read_text())
        return dict(zip(classes["category_ids"], classes["class_names"], strict=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"{path} must be a model's assets/classes.json, got {error!r}") from error


def pasted(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Puts a mask into an image: (height, width) bool.

    A pixel's centre takes its value between the centres of the mask's cells, and belongs to the object from .5 on. Where a model's
    assets/classes.json says `"pasting": "resized"` (weights of torchvision), `kfpn.paste_masks` has the rule; this one differs from it
    by about a pixel along the border.

    Args:
        mask: (M, M) 0..1, within the box.
        box: (4,) yxyx in pixels of the image.
        height, width: of the image.
    """
    weights = []
    for low, high, pixels in ((box[0], box[2], height), (box[1], box[3], width)):
        at = (np.arange(pixels) + 0.5 - low) / max(high - low, 1e-6) * len(mask) - 0.5
        weights.append(np.maximum(1.0 - np.abs(at[:, None] - np.arange(len(mask))), 0.0))
    return weights[0] @ mask @ weights[1].T >= 0.5


def masks_of(outputs: dict, index: int, row: int, height: int, width: int) -> np.ndarray | None:
    """Returns the mask (height, width) bool of one detection of one image; None where the model has no masks.

    An export with --full-masks has pasted them. They lie in the size of the largest image of the request.
    """
    if "detection_masks_reframed" in outputs:
        return outputs["detection_masks_reframed"][index, row, :height, :width] > 0
    if "detection_masks" in outputs:
        return pasted(
            outputs["detection_masks"][index, row], outputs["detection_boxes_pixels"][index, row], height, width
        )
    return None


def fill(picture: Image.Image, outputs: dict, index: int, rows: list[tuple[int, int]]) -> Image.Image:
    """Returns a picture with the masks of detections in the colours of their classes.

    Args:
        picture: RGB.
        outputs: of the server.
        index: of the image in the request.
        rows: of detections, the best first, with the category id of each.
    """
    pixels = np.array(picture, np.float32)
    for row, category in reversed(rows):
        mask = masks_of(outputs, index, row, *pixels.shape[:2])
        if mask is not None:
            pixels[mask] += 0.45 * (np.array(ImageColor.getrgb(COLORS[category % len(COLORS)])) - pixels[mask])
    return Image.fromarray(pixels.round().astype(np.uint8))


def draw(picture: Image.Image, found: list[tuple[str, float, np.ndarray, int]], target: Path) -> None:
    """Draws detections on a picture.

    Args:
        picture: RGB, which is changed.
        found: name, score, box (4,) yxyx in pixels, and category id of each.
        target: file that is written.
    """
    canvas = ImageDraw.Draw(picture)
    for name, score, (y1, x1, y2, x2), category in reversed(found):  # the best on top
        color = COLORS[category % len(COLORS)]
        canvas.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=2)
        text = f"{name} {100 * score:.0f}%"
        place = canvas.textbbox((x1, max(0, y1 - 12)), text)
        canvas.rectangle(place, fill=color)
        canvas.text(place[:2], text, fill="white")
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.save(target)


def show(paths: list[Path], outputs: dict, classes: dict[int, str], min_score: float, folder: Path | None) -> None:
    """Prints the detections of each image, and draws them where a folder is given."""
    taken = set()
    errors = bad_files(outputs, len(paths))
    for index, path in enumerate(paths):
        count = int(outputs["num_detections"][index])
        names = ("detection_scores", "detection_classes", "detection_boxes_pixels")
        rows = zip(*(outputs[name][index, :count] for name in names), strict=True)
        kept = [(row, one) for row, one in enumerate(rows) if one[0] >= min_score]
        found = [
            (classes.get(int(category), str(int(category))), float(score), box, int(category))
            for _, (score, category, box) in kept
        ]
        for name, score, box, _ in found:
            print(f"{path}: {name} {score:.3f} " + " ".join(f"{side:.1f}" for side in box))
        if errors[index]:
            print(f"{path}: {errors[index]}", file=sys.stderr)
        elif not found:
            print(f"{path}: nothing with a score of {min_score:g} or more")
        if folder is not None and not errors[index]:
            stem = path.stem if path.stem not in taken else f"{path.stem}-{index}"
            taken.add(stem)
            picture = fill(_opened(path), outputs, index, [(row, int(category)) for row, (_, category, _) in kept])
            draw(picture, found, folder / f"{stem}.png")


def bad_files(outputs: dict, count: int) -> list[str]:
    """Returns what the server says of each of `count` files: an empty text where it could be read.

    A model that was exported with --strict, or by an older kfpn, has no such output: it refuses the request.
    """
    given = outputs.get("errors", [""] * count)
    return [text.decode() if isinstance(text, bytes) else str(text) for text in given]


def named_indices(message: str, paths: list[Path]) -> str:
    """Returns the message with the files' names behind it where it says at which index of the batch the fault is."""
    groups = re.findall(r"at index (\d+(?:, \d+)*)", message)
    indices = [int(number) for group in groups for number in group.split(", ")]
    names = [str(paths[index]) for index in indices if index < len(paths)]
    return f"{message}\nthat is {', '.join(names)}" if names else message


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", nargs="+", type=Path, help="image files: JPEG, PNG, BMP or GIF")
    parser.add_argument("--protocol", choices=sorted(PORTS), default="grpc")
    parser.add_argument("--server", help="HOST:PORT; localhost:8500 for gRPC and localhost:8501 for REST if not given")
    parser.add_argument("--model", default="kfpn", help="the server's name for the model")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="of the model; the latest if not given")
    which.add_argument("--label", help='of a version, such as "canary"')
    parser.add_argument("--signature", choices=("serving_default", "image_tensor"), default="serving_default")
    parser.add_argument("--classes", type=Path, help="the model's assets/classes.json, for names rather than ids")
    parser.add_argument("--min-score", type=float, default=0.5)
    parser.add_argument("--output", type=Path, help="folder for pictures with the detections drawn in")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds")
    parser.add_argument("--max-message-mb", type=float, default=64.0, help="of a gRPC message; gRPC itself stops at 4")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, or 1 after an error or where a file could not be read."""
    options = parse(arguments)
    server = options.server or f"localhost:{PORTS[options.protocol]}"
    target = Target(server, options.model, options.version, options.label, options.timeout, options.max_message_mb)
    ask = ask_grpc if options.protocol == "grpc" else ask_rest
    try:
        classes = read_classes(options.classes)
        outputs = ask(target, options.signature, *read_input(options.images, options.signature))
        show(options.images, outputs, classes, options.min_score, options.output)
    except Failure as error:
        print(f"serving_client: error: {named_indices(str(error), options.images)}", file=sys.stderr)
        return 1
    return int(any(bad_files(outputs, 0)))


if __name__ == "__main__":
    sys.exit(main())
