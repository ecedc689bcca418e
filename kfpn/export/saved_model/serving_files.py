"""Writes the files that a server reads beside the model: warm-up requests and the batching configuration."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfpn.config.run import InputConfig
from kfpn.data.augment import resized_sizes
from kfpn.export.saved_model.file_faults import find_faults
from kfpn.export.saved_model.file_headers import READABLE, FileHeader, file_header
from kfpn.export.saved_model.image_decoders import decode_image
from kfpn.export.saved_model.request_limits import USUAL_LIMITS, RequestLimits
from kfpn.ops.padding import padded_up

WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
MOST_REQUESTS = 1000
"""Largest number of records that TensorFlow Serving reads of a warm-up file."""

BATCHING = "batching.config"
BATCHING_TEXT = """\
# For tensorflow_model_server --enable_batching --batching_parameters_file=THIS_FILE
# Requests that come within batch_timeout_micros of each other are answered together. This pays on a GPU; on a CPU one
# image keeps all cores busy, and waiting for others only makes it later.
# Requests with image_bytes may mix images of all sizes. Requests with images (pixels) of different sizes can't be put
# into one batch: the server refuses them, so batch only where all clients send one size.
# An image that can't be decoded fails alone, and the index in its error is that in the joint batch. In a model that was
# exported with --strict it fails the batch that it is in.
max_batch_size { value: 8 }
batch_timeout_micros { value: 5000 }
# A batch is filled up to the next of these sizes: a GPU prepares itself for each size once.
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
# Batches that are computed at the same time. More take more memory and, with one device, no less time.
num_batch_threads { value: 2 }
# Beyond this, requests are refused (UNAVAILABLE) instead of waiting ever longer.
max_enqueued_batches { value: 64 }
"""


def read_images(
    paths: Sequence[str | os.PathLike], limits: RequestLimits = USUAL_LIMITS
) -> list[tuple[bytes, np.ndarray]]:
    """Reads image files: returns the bytes of each, and its pixels (H, W, 3) uint8 RGB as a server decodes them.

    Args:
        paths: of the files.
        limits: what the server takes at most.

    Raises:
        ValueError: for a file that cannot be read, or that the server would refuse; it is named.
    """
    images = []
    for path in paths:
        try:
            content = Path(path).read_bytes()
            header = file_header(tf.constant(content))
            faults = find_faults(FileHeader(*(field[None] for field in header)), limits)
            if faults.beyond[0] != b"":
                sentence = faults.beyond[0].numpy().decode()
                raise ValueError(sentence.replace("image_bytes", str(path), 1).replace(" at index 0", "", 1))
            if faults.got[0] != b"":
                raise ValueError(f"{path} must be one of {READABLE}, got {faults.got[0].numpy().decode()}")
            images.append((content, decode_image(tf.constant(content), header).numpy()))
        except OSError as error:
            raise ValueError(f"{path} must be an image file that can be read, got {error.strerror}") from error
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"{path} must be one of {READABLE}, got one that is damaged") from error
    return images


def check_batch_sizes(batch_sizes: Sequence[int], limits: RequestLimits) -> None:
    """Raises ValueError unless there is at least one batch size, and all lie within what a request may hold."""
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"warmup_batch_sizes must be integers of at least 1, got {tuple(batch_sizes)}")
    if max(batch_sizes) > limits.max_images:
        raise ValueError(f"warmup_batch_sizes must be at most max_images, {limits.max_images}, got {max(batch_sizes)}")


def check_batch_pixels(
    images: Sequence[tuple[bytes, np.ndarray]],
    batch_sizes: Sequence[int],
    config: InputConfig,
    limits: RequestLimits,
    full_masks: int = 0,
) -> None:
    """Checks that the server takes the pixels of each warm-up request: before and after resizing, and of the answer's full masks.

    Args:
        images: of `read_images`.
        batch_sizes: images in a request.
        config: the resize rule and the divisor.
        limits: what the server takes at most.
        full_masks: number of full masks that the answer has of an image.

    Raises:
        ValueError: if one has more.
    """
    for _, pixels in images:
        padded = padded_up(resized_sizes(np.array(pixels.shape[:2]), config), config.divisor)
        sides = pixels.shape[:2]
        for shape, most, where, option in (
            (padded, limits.max_batch_pixels, "after resizing and padding", "max_batch_pixels"),
            (sides, limits.request_pixels, "before resizing", "max_request_pixels"),
            ((full_masks, *sides), limits.max_mask_pixels, "in the full masks of the answer", "max_mask_pixels"),
        ):
            total = max(batch_sizes) * int(np.prod(shape))
            if total > most:
                raise ValueError(
                    f"warmup requests must have at most {most} pixels {where}, got {total}: "
                    f"make warmup_batch_sizes smaller or {option} larger"
                )


def write_warmup(
    path: Path,
    images: Sequence[tuple[bytes, np.ndarray]],
    signatures: Sequence[str],
    batch_sizes: Sequence[int],
    model_name: str,
) -> None:
    """Writes the warm-up file of a SavedModel: a request for each signature, batch size and image.

    Args:
        path: the SavedModel's folder.
        images: of `read_images`.
        signatures: names of signatures of the model.
        batch_sizes: images in a request; each repeats one image.
        model_name: goes into the requests; a server reads the signature's name only.

    Raises:
        ValueError: if there are more requests than a server reads.
    """
    count = len(images) * len(signatures) * len(batch_sizes)
    if count > MOST_REQUESTS:
        raise ValueError(f"warmup must make at most {MOST_REQUESTS} requests, got {count}")
    file = path / WARMUP
    file.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as records:
        for signature in signatures:
            for batch_size in batch_sizes:
                for content, pixels in images:
                    takes_files = signature == "serving_default"
                    name, value = ("image_bytes", np.array(content, object)) if takes_files else ("images", pixels)
                    batch = np.stack([value] * batch_size)
                    records.write(prediction_log(model_name, signature, name, batch))


def prediction_log(model_name: str, signature: str, input_name: str, values: np.ndarray) -> bytes:
    """Returns a serialized `tensorflow.serving.PredictionLog` that holds a request of Predict.

    It is put together from the field numbers of prediction_log.proto, predict.proto and model.proto, because
    tensorflow-serving-api would install a TensorFlow version of its own.

    Args:
        model_name: of the ModelSpec.
        signature: of the ModelSpec.
        input_name: of the one input.
        values: the input, any dtype of `tf.make_tensor_proto`.
    """
    tensor = tf.make_tensor_proto(values).SerializeToString()
    model_spec = _field(1, model_name.encode()) + _field(3, signature.encode())
    inputs = _field(1, input_name.encode()) + _field(2, tensor)
    request = _field(1, model_spec) + _field(2, inputs)
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Returns an integer in the variable length of a protocol buffer: seven bits a byte, the lowest first."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def write_batching(directory: Path) -> Path:
    """Writes a batching configuration into a model's folder, unless it is there.

    The file may stand there, because a server looks only at folders whose names are numbers.
    """
    path = directory / BATCHING
    if not path.exists():
        path.write_text(BATCHING_TEXT, encoding="utf-8")
    return path
