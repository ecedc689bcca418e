"""Tells which nodes of a graph TF-TRT converts, by TensorFlow 2.17's own list of converters and their main rules."""

from kfpn.export.measure import flops
from kfpn.export.tensorrt_layers import LARGEST_TOP_K
from kfpn.export.tf_trt.trt_partition import ConversionReport, Node, count_conversion

# Inputs that must be constants, by position; -1 is the last (CheckInputsWeights in convert_nodes.cc, explicit batch).
CONSTANT_INPUTS = {
    "ArgMax": (1,), "ArgMin": (1,), "CombinedNonMaxSuppression": (2, 3, 4, 5), "ConcatV2": (-1,),
    "DepthwiseConv2dNative": (1,), "ExpandDims": (1,), "GatherV2": (2,), "Max": (1,), "Mean": (1,), "Min": (1,),
    "Pad": (1,), "Prod": (1,), "Slice": (1, 2), "Split": (0,), "StridedSlice": (1, 2, 3), "Sum": (1,), "TopKV2": (1,),
    "Transpose": (1,),
}  # fmt: skip
FLOATS = ("float32", "float16")
NUMBERS = (*FLOATS, "int32")
TENSORS = (*NUMBERS, "bool")
# Types of an op's data inputs where the list is not FLOATS (AllowedDataTypes in convert/ops/*.cc).
ALLOWED = {
    **dict.fromkeys(("Add", "AddV2", "Div", "FloorDiv", "Maximum", "Minimum", "Mul", "Pow", "RealDiv", "Sub"), NUMBERS),
    **dict.fromkeys(("Equal", "Greater", "GreaterEqual", "Less", "LessEqual"), NUMBERS),
    **dict.fromkeys(("LogicalAnd", "LogicalNot", "LogicalOr"), ("bool",)),
    **dict.fromkeys(
        ("BiasAdd", "Cast", "ConcatV2", "Const", "ExpandDims", "Fill", "GatherV2", "Identity", "IdentityN", "Pack",
         "Prod", "Range", "Reshape", "Shape", "Slice", "Snapshot", "Split", "Squeeze", "StopGradient", "StridedSlice",
         "Sum", "Max", "Min", "Mean", "Tile", "Transpose", "Unpack", "ZerosLike", "OnesLike", "ResizeBilinear",
         "ResizeNearestNeighbor"), NUMBERS),
    **dict.fromkeys(("Select", "SelectV2"), TENSORS),
}  # fmt: skip
# Both inputs must be tensors (binary_ops.cc, both_tensors).
NO_CONSTANTS = ("LogicalAnd", "LogicalOr")


def converters() -> frozenset[str]:
    """Returns the ops that TF-TRT has converters for, from TensorFlow itself: no TensorRT and no GPU are needed.

    Raises:
        ValueError: if this TensorFlow was built without TF-TRT (2.18 and later).
    """
    import tensorflow as tf

    try:
        from tensorflow.compiler.tf2tensorrt import _pywrap_py_utils
    except ImportError:
        names = []
    else:
        names = _pywrap_py_utils.get_registered_op_converters()
    if len(names) < 2:
        raise ValueError(
            f"TensorFlow must be 2.17 for the list of TF-TRT's converters, got {tf.__version__}, which has none: "
            "pip install tensorflow==2.17.1 in a venv of its own"
        )
    return frozenset(names)


def frozen_graph(function, shape):
    """Freezes a function and runs the passes that TF-TRT runs before it looks for segments.

    Args:
        function: concrete function of images, and perhaps of image_sizes (B, 2).
        shape: (B, H, W, 3), to which the inputs are set afterwards, so that shapes can be inferred.

    Returns:
        The tf.Graph in which TF-TRT looks for segments.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function)
    kept = [tensor.name for tensor in (*frozen.inputs, *frozen.outputs)]
    definition = _optimised(frozen.graph, kept)
    ranks = {tensor.op.name: tensor.shape.rank for tensor in frozen.inputs}
    for node in definition.node:
        if node.name in ranks:
            known = shape if ranks[node.name] == len(shape) else (shape[0], 2)
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(known).as_proto())
        node.attr.pop("_output_shapes", None)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    return graph


def _optimised(graph, kept):
    """Returns the GraphDef after grappler's passes in TF-TRT's order. Tensors named in `kept` stay."""
    from tensorflow.core.framework import graph_pb2
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.python.grappler import tf_optimizer
    from tensorflow.python.training import saver

    definition = graph.as_graph_def()
    for node in definition.node:
        node.device = ""
    meta = saver.export_meta_graph(graph_def=definition, graph=graph)
    fetch = meta_graph_pb2.CollectionDef()
    fetch.node_list.value.extend(kept)
    meta.collection_def["train_op"].CopyFrom(fetch)
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.remapping = rewrite.OFF
    rewrite.meta_optimizer_iterations = rewrite.ONE
    passes = ("pruning", "debug_stripper", "layout", "dependency", "constfold", "common_subgraph_elimination")
    rewrite.optimizers.extend(passes)
    optimised = graph_pb2.GraphDef()
    optimised.CopyFrom(tf_optimizer.OptimizeGraph(config, meta, graph_id=b"tf_graph"))
    return optimised


def _shape_reason(op):
    for tensor in op.inputs:
        if tensor.op.type == "Const":
            continue
        if tensor.shape.rank is None:
            return "an input of unknown rank"
        if 0 in tensor.shape.as_list():
            return "an empty input"
    return ""


def _constant_reason(op):
    constant = [tensor.op.type == "Const" for tensor in op.inputs]
    for at in CONSTANT_INPUTS.get(op.type, ()):
        if not constant[at]:
            return f"input {at % len(constant)} must be a constant"
    if op.type in ("Conv2D", "Conv2DBackpropInput") and not constant[1]:
        return "the kernel must be a constant"
    if op.type in NO_CONSTANTS and any(constant):
        return "both inputs must be tensors"
    return ""


def _type_reason(op):
    # Constants are weights. The converter of each op checks their type by the op's own type.
    for tensor in (*(each for each in op.inputs if each.op.type != "Const"), *op.outputs):
        if tensor.dtype.name not in TENSORS:
            return f"{tensor.dtype.name}"
    allowed = ALLOWED.get(op.type, FLOATS)
    attribute = next((name for name in ("T", "dtype", "SrcT", "Tparams", "type") if name in op.node_def.attr), None)
    if attribute and op.type != "CombinedNonMaxSuppression":
        kind = op.get_attr(attribute).name
        if kind not in allowed and not (op.type == "Cast" and kind == "bool"):
            return kind
    return ""


def refusal(op, known: frozenset[str]) -> str:
    """Returns the reason why TF-TRT cannot convert an operation with an explicit batch, in a few words; empty if it can.

    Args:
        op: tf.Operation, with shapes.
        known: of `converters`.
    """
    if op.type not in known:
        return "no converter"
    if op.type == "TopKV2" and op.inputs[1].op.type == "Const":
        import tensorflow as tf

        if int(tf.make_ndarray(op.inputs[1].op.get_attr("value"))) > LARGEST_TOP_K:
            return f"k above {LARGEST_TOP_K}"
    return _constant_reason(op) or _type_reason(op) or _shape_reason(op)


def graph_nodes(graph, known: frozenset[str], static=None) -> tuple[list[Node], list[str]]:
    """Returns a graph's nodes for `count_conversion`, and the names of products without a static shape.

    Args:
        graph: tf.Graph, see `frozen_graph`.
        known: of `converters`.
        static: tf.Graph of the same function traced for static sizes, for shapes that inference does not give.
    """
    same = {op.name: op for op in static.get_operations()} if static else {}
    nodes, uncounted = [], []
    for op in graph.get_operations():
        count = flops(op)
        if count is None and op.name in same and same[op.name].type == op.type:
            count = flops(same[op.name])
        if count is None:
            uncounted.append(op.name)
        inputs = tuple(dict.fromkeys(tensor.op.name for tensor in op.inputs))
        controls = tuple(other.name for other in op.control_inputs)
        nodes.append(Node(op.name, op.type, inputs, controls, refusal(op, known), count or 0))
    return nodes, uncounted


def report_on_function(
    function, shape, known: frozenset[str], minimum_segment_size: int, static=None
) -> ConversionReport:
    """Reports what TF-TRT would convert of a concrete function.

    Args:
        function: see `frozen_graph`.
        shape: (B, H, W, 3).
        known: of `converters`.
        minimum_segment_size: int, nodes that an engine must hold.
        static: see `graph_nodes`.
    """
    nodes, uncounted = graph_nodes(frozen_graph(function, shape), known, static)
    return count_conversion(nodes, minimum_segment_size, uncounted)
