"""Measures speed: seconds, floating-point operations, and the peak of this machine's convolutions."""

import functools
import time
from collections.abc import Callable
from math import prod
from typing import Any


def timed(call: Callable[[], Any], runs: int) -> list[float]:
    """Returns the seconds of `runs` calls, after two that warm up."""
    call(), call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def conv_peak(runs: int = 6) -> float:
    """Returns the best GFLOP/s of 3x3 convolutions of ResNet-like shapes, by TensorFlow's kernel and by XLA's."""
    import tensorflow as tf

    best = 0.0
    for side, channels in ((64, 256), (32, 512), (64, 128)):
        x, kernel = tf.random.normal((1, side, side, channels)), tf.random.normal((3, 3, channels, channels))
        for jit in (False, True):
            conv = tf.function(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"), jit_compile=jit)
            call = functools.partial(conv, x, kernel)
            seconds = min(timed(lambda call=call: call().numpy(), runs))  # type: ignore[misc]
            best = max(best, 2 * side**2 * 9 * channels**2 / seconds / 1e9)
    return best


def gigaflops(function: Any) -> float:
    """Returns the GFLOP of the convolutions and matrix products that a traced function's outputs depend on.

    Other operations are not counted: gradients of frozen kernels and of the image stand in the traced graph but are never
    computed.

    Args:
        function: concrete function of static shapes.
    """
    ops, waiting = set(), [output.op for output in function.outputs]
    while waiting:
        op = waiting.pop()
        if op not in ops:
            ops.add(op)
            waiting += [tensor.op for tensor in op.inputs]
    return sum(flops(op) or 0 for op in ops) / 1e9


def flops(op: Any) -> int | None:
    """Returns the floating-point operations of a product, 2 a multiply-add; 0 for other ops, None without static shapes.

    Args:
        op: `tf.Operation`.
    """
    shapes = [tensor.shape for tensor in op.inputs]
    if op.type in ("Conv2D", "DepthwiseConv2dNative"):
        # A depthwise kernel is (h, w, channels, multiplier): each output reads h w values.
        out, reads = op.outputs[0].shape, shapes[1][:3] if op.type == "Conv2D" else shapes[1][:2]
    elif op.type == "Conv2DBackpropInput":
        out, reads = shapes[2], shapes[1][:3]
    elif op.type == "Conv2DBackpropFilter":
        out, reads = shapes[2], op.outputs[0].shape[:3]
    elif op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        if shapes[0].rank is None:
            return None
        turned = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
        out, reads = op.outputs[0].shape, shapes[0][-2:-1] if turned else shapes[0][-1:]
    else:
        return 0
    if not (out.is_fully_defined() and reads.is_fully_defined()):
        return None
    return 2 * prod(out.as_list()) * prod(reads.as_list())
