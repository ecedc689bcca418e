"""Lists the products of `kfpn export`: the table that options, help and dispatch are made of."""

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
        translate: turns the words of an older version's command line into those of this one, and warns; None: nothing
            was renamed.
    """

    name: str
    runs_in: str
    options: type
    run: Callable[[Any], int]
    description: str
    example: str
    translate: Callable[[list[str]], list[str]] | None = None


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
        "kfpn export tf_trt runs/shapes --report", trt_options.translate_old_options,
    ),
)  # fmt: skip
"""The products of `kfpn export`, a row each."""
