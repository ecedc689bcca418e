"""Lists the products of `kfpn export`: the table that options, help and dispatch are made of."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from kfpn.export.onnx import onnx_options
from kfpn.export.saved_model import saved_model_options
from kfpn.export.tf_trt import run_tf_trt, trt_options


class ExportRow(NamedTuple):
    """One product that `kfpn export` makes.

    Attributes:
        name: of the subcommand.
        runs_in: the programs that run the product.
        options: the dataclass of its options.
        run: the function that makes the product of such options, and returns the exit code.
        description: what `--help` says.
        example: a command.
    """

    name: str
    runs_in: str
    options: type
    run: Callable[[Any], int]
    description: str
    example: str


EXPORTS = (
    ExportRow(
        "saved_model", "TensorFlow Serving", saved_model_options.SavedModelOptions, saved_model_options.run, saved_model_options.DESCRIPTION,
        "kfpn export saved_model runs/shapes served/shapes --verify",
    ),
    ExportRow(
        "onnx", "ONNX Runtime, OpenVINO, TensorRT", onnx_options.OnnxOptions, onnx_options.run, onnx_options.DESCRIPTION,
        "kfpn export onnx runs/shapes shapes.onnx",
    ),
    ExportRow(
        "tf_trt", "TensorRT inside TensorFlow", trt_options.TfTrtOptions, run_tf_trt.run, trt_options.DESCRIPTION,
        "kfpn export tf_trt runs/shapes --report",
    ),
)  # fmt: skip
"""The products of `kfpn export`, a row each."""


def places_first(name: str, words: list[str]) -> list[str]:
    """Returns words with `--workdir W --output O` written as `W O`; it warns if there are any.

    In 0.1.0 tf_trt named both in that way, and all other commands do still.

    Args:
        name: of the export.
        words: those behind `kfpn export NAME`.
    """
    places: dict[str, str] = {}
    rest = []
    remaining = iter(words)
    for word in remaining:
        option, equals, value = word.partition("=")
        if option in ("--workdir", "--output"):
            places[option] = value if equals else next(remaining, "")
        else:
            rest.append(word)
    if "--workdir" not in places:
        return words
    warnings.warn(
        f"kfpn export {name} --workdir W --output DIR is now kfpn export {name} W DIR; the old options will go in 0.3",
        FutureWarning,
        stacklevel=2,
    )
    return [place for option in ("--workdir", "--output") if (place := places.get(option))] + rest
