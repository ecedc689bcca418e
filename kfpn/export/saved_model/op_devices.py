"""Lists which operations of an exported model have no kernel for GPUs, part by part."""

import collections
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

CPU_OPERATIONS = frozenset(
    (
        "AsString", "CombinedNonMaxSuppression", "ConcatenateDataset", "DatasetToSingleElement", "DecodeBmp", "DecodeGif",
        "DecodeImage", "DecodeJpeg", "DecodePng", "DecodeRaw", "ExtractJpegShape", "IgnoreErrorsDataset",
        "NonMaxSuppressionV5", "NonMaxSuppressionWithOverlaps", "PaddedBatchDatasetV2", "ParallelMapDatasetV2", "ReduceJoin",
        "ResizeBicubic", "ScaleAndTranslate", "StringJoin", "StringLength", "StringSplitV2", "Substr", "TensorDataset",
        "TensorSliceDataset",
    )
)  # fmt: skip
"""Operations without a kernel for GPUs, whatever the type of their values.

This and `CPU_TYPES` were read from the kernels that TensorFlow 2.21 registers (a build for CUDA registers those for GPUs on
machines without one too); a test compares them with the TensorFlow that is installed.
"""
CPU_TYPES = frozenset(
    (
        ("BroadcastTo", "uint8"), ("DenseBincount", "int64"), ("GatherV2", "uint8"), ("Pow", "int32"), ("Split", "int32"),
        ("TensorListConcatV2", "uint8"), ("TensorListSetItem", "uint8"), ("TensorScatterUpdate", "bool"), ("Tile", "uint8"),
    )
)  # fmt: skip
"""Operations that have kernels for GPUs, but none for values of this type. Those of int32 compute shapes, on the host."""
STRINGS_ANYWHERE = ("Identity", "Placeholder")
"""Operations that take strings on every device; all others of strings run on the CPU."""
TYPE_ATTRIBUTES = ("T", "dtype", "Tparams", "element_dtype", "SrcT", "DstT")
"""Attributes of operations that name the type of their values."""

PARTS_OF_SEGMENTS = (
    ("backbone, pyramid", r"pyramid\b"),
    ("scores of all windows", r"all_windows\b"),
    ("best windows and their masks", r"_segment_batch/(best_windows|masks|scores|segment_)"),
)
"""Parts that an export of segments has beside those of `PARTS` that it shares; they are looked for first."""
PARTS = (
    ("backbone, pyramid, RPN", r"convolve\b"),
    ("proposals", r"(_detect_in_batch/|_propose_in_batch/)?proposals"),
    ("RoIAlign and heads", r"second_stage\b|(_detect_in_batch/)?(boxes_\d|joined_stages)"),
    ("detections", r"(_detect_in_batch/)?detections"),
    ("boxes in pixels of the image", r"(_detect_in_batch|_propose_in_batch|_segment_batch)/"),
    ("reading, resizing, padding", r""),
)
"""Part of the export -> the beginning of FUNCTION/NODE of the operations in it; the first that fits counts."""


class PartDevices(NamedTuple):
    """What a part of an export needs.

    Attributes:
        part: its name, of `PARTS`.
        operations: how many it has.
        cpu_only: name of an operation, with the type of its values where that matters -> how many of them have no kernel
            for GPUs.
    """

    part: str
    operations: int
    cpu_only: dict[str, int]


def device_rows(path: str | os.PathLike) -> list[PartDevices]:
    """Returns what each part of a SavedModel needs, the parts in the order of `PARTS_OF_SEGMENTS` and `PARTS`.

    Args:
        path: the folder of a version.
    """
    import tensorflow as tf

    signatures, parts = tf.saved_model.load(str(path)).signatures, (*PARTS_OF_SEGMENTS, *PARTS)
    counts: collections.Counter[str] = collections.Counter()
    cpu_only: dict[str, collections.Counter[str]] = {part: collections.Counter() for part, _ in parts}
    for place, node in exported_nodes(signatures):
        part = next(part for part, beginning in parts if re.match(beginning, place))
        counts[part] += 1
        if name := cpu_operation(node):
            cpu_only[part][name] += 1
    return [PartDevices(part, counts[part], dict(sorted(cpu_only[part].items()))) for part, _ in parts if counts[part]]


def exported_nodes(signatures: Any) -> Iterator[tuple[str, Any]]:
    """Yields FUNCTION/NODE and the NodeDef of each operation of signatures; a function that several share comes once."""
    seen = set()
    for name, signature in signatures.items():
        graph = signature.graph.as_graph_def()
        library = {function.signature.name: function.node_def for function in graph.library.function}
        for function, nodes in {f"signature_{name}": graph.node, **library}.items():
            if function in seen:
                continue
            seen.add(function)
            stem = re.sub(r"^__inference_|(_\d+)+$", "", function)
            yield from ((f"{stem}/{node.name}", node) for node in nodes if node.op not in library)


def cpu_operation(node: Any) -> str | None:
    """Returns the name in the table of an operation that has no kernel for GPUs; None: it has one."""
    if node.op in CPU_OPERATIONS:
        return node.op
    types = value_types(node)
    for kind in sorted(types):
        if (node.op, kind) in CPU_TYPES:
            return f"{node.op} of {kind}"
    return "operations of strings" if "string" in types and node.op not in STRINGS_ANYWHERE else None


def value_types(node: Any) -> set[str]:
    """Returns the types that an operation's attributes name, such as float32."""
    import tensorflow as tf

    kinds = (node.attr[name].type for name in TYPE_ATTRIBUTES if name in node.attr)
    return {tf.dtypes.as_dtype(kind).name for kind in kinds if kind}


def device_table(path: str | os.PathLike) -> str:
    """Returns the rows of `device_rows` as a table in Markdown."""
    lines = ["| part | operations | without a kernel for GPUs |", "|---|---|---|"]
    for part, operations, cpu_only in device_rows(path):
        names = ", ".join(f"{count} {name}" for name, count in cpu_only.items())
        lines.append(f"| {part} | {operations} | {names or 'none'} |")
    return "\n".join(lines)
