"""Tells in which precisions a benchmark runs models, and which one an ONNX file has."""

from pathlib import Path

from kfpn.runs.fast_bfloat16 import has_fast_bfloat16

_INT8_ENTRY = b"\x0a\x09precision\x12\x04int8"
"""The entry precision = int8 among the metadata of an ONNX file: two fields of a protobuf, each a number, a length and a text."""


def precisions_of(asked: str) -> tuple[str, ...]:
    """Returns the precisions that `--precision` stands for: auto is float32, and bfloat16 too where the processor computes it fast."""
    if asked not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be one of auto, float32, bfloat16, got {asked!r}")
    if asked != "auto":
        return (asked,)
    return ("float32", "bfloat16") if has_fast_bfloat16() else ("float32",)


def precision_of_onnx(path: Path) -> str:
    """Returns "int8" for a file that `kfpn export onnx --int8` wrote, else "float32". It needs no package that reads ONNX."""
    return "int8" if _INT8_ENTRY in path.read_bytes() else "float32"
