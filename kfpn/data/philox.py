"""Draws the random numbers of TensorFlow's `stateless_uniform` with NumPy, bit for bit: what is drawn is the same without TensorFlow.

The generator is Philox 4x32 with ten rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). As TensorFlow does, a
first block scrambles the two seeds to the key and the upper half of the counter, so that neighbouring seeds differ as much as any.
"""

import math
from typing import Any

import numpy as np

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_SCRAMBLING_KEY = 0x3EC8F720, 0x02461E29
_ROUNDS = 10
_WORD = 0xFFFFFFFF
_32 = np.uint64(32)

Words = tuple[Any, Any, Any, Any]
"""Four words of 32 bits: integers of Python, or arrays (N,) uint64 of them for N blocks."""


def uniform(shape: tuple[int, ...], seeds: tuple[int, int], dtype: type = np.float32) -> np.ndarray:
    """Returns what `tf.random.stateless_uniform(shape, seeds, dtype=dtype, alg="philox")` returns.

    Args:
        shape: of the result.
        seeds: two integers of 64 bits, with or without sign.
        dtype: numpy.float32 or numpy.float64.

    Returns:
        Numbers in [0, 1).
    """
    count = math.prod(shape)
    if dtype is np.float32:
        words = _words(-(-count // 4), seeds)[:count]
        bits = (words & np.uint32(0x7FFFFF)) | np.uint32(127 << 23)
        return (bits.view(np.float32) - np.float32(1.0)).reshape(shape)
    pairs = _words(-(-count // 2), seeds).reshape(-1, 2)[:count].astype(np.uint64)
    bits = ((pairs[:, 0] & np.uint64(0xFFFFF)) << _32) | pairs[:, 1] | np.uint64(1023 << 52)
    return (bits.view(np.float64) - 1.0).reshape(shape)


def integer_below(seeds: tuple[int, int], limit: int) -> int:
    """Returns what `tf.random.stateless_uniform((), seeds, maxval=limit, dtype=tf.int32, alg="philox")` returns, 0 to `limit` - 1."""
    return int(_words(1, seeds)[0]) % limit


def _words(blocks: int, seeds: tuple[int, int]) -> np.ndarray:
    """Returns the first 4 x `blocks` random words, uint32, of two seeds."""
    low, high = seeds
    mixed = _philox((low & _WORD, (low >> 32) & _WORD, high & _WORD, (high >> 32) & _WORD), _SCRAMBLING_KEY)
    # A single block, which is what each sample draws, is computed by Python: NumPy takes 20 times as long for so few numbers.
    number = 0 if blocks == 1 else np.arange(blocks, dtype=np.uint64)
    words = _philox((number, 0, mixed[2], mixed[3]), mixed[:2])
    return np.array(words).T.astype(np.uint32).reshape(-1)


def _philox(counter: Words, key: tuple[int, int]) -> Words:
    """Returns the random words of a counter, or of N counters at once."""
    first, second, third, fourth = counter
    for number in range(_ROUNDS):
        low, high = ((part + number * step) & _WORD for part, step in zip(key, _WEYL, strict=True))
        one, other = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second, third, fourth = (
            (other >> 32) ^ second ^ low,
            other & _WORD,
            (one >> 32) ^ fourth ^ high,
            one & _WORD,
        )
    return first, second, third, fourth
