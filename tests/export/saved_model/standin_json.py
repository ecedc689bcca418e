"""Turns JSON requests into tensors and responses into JSON, as TF Serving does: by rows ("instances") or columns ("inputs")."""

import base64
import json
import math

import numpy as np
import tensorflow as tf


class Refused(Exception):
    """Is raised to answer with an error: a name of `grpc.StatusCode`, and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    return Refused("INVALID_ARGUMENT", message)


def plain(value, dtype):
    """Returns the JSON value with each {"b64": text} decoded, and strings as bytes."""
    if isinstance(value, list):
        return [plain(one, dtype) for one in value]
    if isinstance(value, dict):
        if set(value) != {"b64"} or not isinstance(value["b64"], str) or dtype != tf.string:
            raise invalid(f"JSON Value: {json.dumps(value)[:200]} Type: Object is not of expected type: {dtype.name}")
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError:
            raise invalid("Unable to base64 decode") from None
    allowed = (str,) if dtype == tf.string else (int,) if dtype.is_integer else (int, float)
    if type(value) not in allowed:
        raise invalid(f"JSON Value: {json.dumps(value)[:200]} is not of expected type: {dtype.name}")
    return value.encode() if dtype == tf.string else value


def fill(request, document, signature):
    """Fills a request from JSON, and returns True if it is given by rows ("instances"), False if by columns ("inputs")."""
    names = set(signature.inputs)
    if ("instances" in document) == ("inputs" in document):
        raise invalid("Missing 'inputs' or 'instances' key, of which one is expected")
    rows = "instances" in document
    given = document["instances"] if rows else document["inputs"]
    if rows and (not isinstance(given, list) or not given):
        raise invalid("'instances' must be a list of at least one")

    def named(value):
        return isinstance(value, dict) and set(value) != {"b64"}

    if rows and named(given[0]):
        for index, one in enumerate(given):
            if not named(one) or set(one) != names:
                where = f"Failed to process element: {index} of 'instances' list."
                raise invalid(f"{where} JSON object keys must be equal to: {','.join(sorted(names))}")
        given = {name: [one[name] for one in given] for name in names}
    elif not named(given):
        if len(names) > 1:
            raise invalid("a plain list is given, but several input tensors are required")
        given = {next(iter(names)): given}
    for name in names:
        if name not in given:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        dtype = tf.as_dtype(signature.inputs[name].dtype)
        value = plain(given[name], dtype)
        try:
            array = np.array(value, dtype=object if dtype == tf.string else None)
        except (ValueError, OverflowError) as error:  # lists of different lengths
            raise invalid(f"Failed to process input: {name}. {error}") from error
        # NumPy 1 would turn numbers that are too large into others, without an error.
        if dtype.is_integer and array.size and not dtype.min <= array.min() <= array.max() <= dtype.max:
            raise invalid(f"{name} must lie in {dtype.min}..{dtype.max}, got {array.min()}..{array.max()}")
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype))
    return rows


def listed(values):
    """Returns an output as JSON has it. Strings are plain text, because no output's name ends with _bytes."""
    return [text.decode() for text in values] if values.dtype == object else values.tolist()


def document_of(response, rows):
    outputs = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
    if not rows:
        columns = {name: listed(value) for name, value in outputs.items()}
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    sizes = {value.shape[0] if value.ndim else math.nan for value in outputs.values()}
    if len(sizes) != 1 or math.nan in sizes:
        raise invalid(f"Tensors have an inconsistent batch size: {sizes}")
    lists = {name: listed(value) for name, value in outputs.items()}
    found = [dict(zip(lists, one, strict=True)) for one in zip(*lists.values(), strict=True)]
    return {"predictions": found if len(lists) > 1 else next(iter(lists.values()))}
