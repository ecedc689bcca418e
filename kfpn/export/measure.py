"""What a speed is measured by: seconds, floating-point operations, and the peak of this machine's convolutions."""

import functools
import statistics
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


def median(values: list[float]) -> float:
    """Returns the median."""
    return statistics.median(values)


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

    Gradients nobody asked for (of frozen kernels, of the image) stand in the traced graph but are never computed.

    Args:
        function: concrete function of static shapes.
    """
    ops, waiting, total = set(), [output.op for output in function.outputs], 0
    while waiting:
        op = waiting.pop()
        if op not in ops:
            ops.add(op)
            waiting += [tensor.op for tensor in op.inputs]
    for op in ops:
        if op.type == "Conv2D":
            total += 2 * prod(op.outputs[0].shape) * prod(op.inputs[1].shape[:3])
        elif op.type == "Conv2DBackpropInput":
            total += 2 * prod(op.inputs[2].shape) * prod(op.inputs[1].shape[:3])
        elif op.type == "Conv2DBackpropFilter":
            total += 2 * prod(op.inputs[2].shape) * prod(op.outputs[0].shape[:3])
        elif op.type in ("MatMul", "BatchMatMulV2"):
            turned = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            total += 2 * prod(op.outputs[0].shape) * op.inputs[0].shape[-2 if turned else -1]
    return total / 1e9
