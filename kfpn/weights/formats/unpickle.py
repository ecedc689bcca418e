"""Reads pickles of arrays (detectron2's and Caffe2's .pkl) without running anything that they name."""

import mmap
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

from kfpn.weights.formats.pickle_cost import require_bounded_hashing
from kfpn.weights.formats.safe_values import Refused, plain_array, plain_tree

# A pickle can call every object that it gets, set attributes of it, and give NumPy a state that crashes it. So a pickle gets
# none of NumPy's own functions: the classes below stand in for them, and make arrays only of bytes that are in the file.


class _StandIn:
    """Stands in for a function or class of NumPy's or Python's."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        # Being defined here, it also stops pickles from setting attributes of the classes themselves.
        raise Refused(f"gives a state to {type(self).__name__.lstrip('_')}")


class _DType(_StandIn):
    """Stands in for numpy.dtype: a plain number type and its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?[biufc]\d{1,2}|\?", code):
            what = "objects" if code in ("O", "O8", "O4", "|O") else f"dtype {str(code)[:40]!r}"
            raise Refused(f"holds an array of {what}, must be numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order, subarray, names, fields = state[1:5]
        if (subarray, names, fields) != (None, None, None) or order not in ("<", ">", "=", "|"):
            raise Refused("holds an array of structured dtype, must be numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Type(_StandIn):
    """Stands in for numpy.ndarray, which array pickles name and which nothing may call."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> "_Type":
        raise Refused("makes numpy.ndarray in a way NumPy does not")


class _Array(_StandIn):
    """Stands in for numpy's _reconstruct: an array whose shape, dtype and bytes follow as its state."""

    __slots__ = ("value",)

    def __init__(self, kind: Any, shape: Any, code: Any) -> None:
        if kind is not _Type:
            raise Refused("holds an array of an unknown class")
        self.value = np.zeros(0, np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


class _FromBuffer(_StandIn):
    """Stands in for numpy's _frombuffer, which pickle protocol 5 uses."""

    __slots__ = ()

    def __new__(cls, raw: Any, dtype: Any, shape: Any, order: Any) -> "_Array":  # type: ignore[misc]
        made = _Array(_Type, (0,), "b")
        made.value = _array(raw, dtype, shape, order)
        return made


class _Scalar(_StandIn):
    """Stands in for numpy's scalar: one number."""

    __slots__ = ()

    def __new__(cls, dtype: Any, raw: Any) -> Any:
        return _array(raw, dtype, (), "C")[()]


class _Encode(_StandIn):
    """Stands in for _codecs.encode, with which Python 3 writes bytes in protocol 2."""

    __slots__ = ()

    def __new__(cls, text: Any, encoding: Any = "") -> Any:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise Refused(f"calls _codecs.encode with {str(encoding)[:40]!r}")
        return text.encode("latin1")


class _Bytes(_StandIn):
    """Stands in for bytes, with which Python 3 writes b"" in protocol 2."""

    __slots__ = ()

    def __new__(cls) -> Any:
        return b""


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise Refused("holds an array without a dtype")
    if isinstance(raw, str):
        # Python 2 has no type for bytes. The unpickler's encoding "latin1" makes one character of each byte.
        raw = raw.encode("latin1")
    return plain_array(np.frombuffer(raw, dtype.dtype).reshape(shape, order=order).copy(order="K"))


ALLOWED = {
    ("collections", "OrderedDict"): dict,
    **{
        (module, name): stand_in
        for module in ("builtins", "__builtin__")  # of Python 3 and 2
        for name, stand_in in (("set", set), ("frozenset", frozenset), ("bytes", _Bytes))
    },
    ("_codecs", "encode"): _Encode,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Type,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")  # before and since NumPy 2
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _FromBuffer),
        )
    },
}
"""(module, name) that a pickle may ask for -> what it gets instead. All other names are refused."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise Refused(
                f"needs {module}.{name}, which is refused: calling what a pickle names can run any code. "
                "Save plain arrays instead: pickle.dump({name: array, ...}, file), or a state_dict by torch.save"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("refers to data outside of it (persistent id), as the inner part of a PyTorch file does")


def check_pickles(path: Path, number: int) -> None:
    """Checks a file's first pickles before they are read: that they are whole, and take neither much memory nor for ever.

    A pickle numbers the objects that it refers to again. Python's unpickler makes room for all numbers up to the highest
    one, so a few bytes with a high number would take gigabytes.

    Args:
        path: a file that is not empty.
        number: the number of pickles that follow one another in it.

    Raises:
        Refused: if an object has too high a number, or keys would take too long to hash.
        Exception: of any kind, if the file ends too early or is damaged.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for _ in range(number):
            begin = data.tell()
            _check_pickle(data)
            data.seek(begin)
            require_bounded_hashing(data)


def _check_pickle(data: mmap.mmap) -> None:
    for count, (code, argument, _) in enumerate(pickletools.genops(data)):  # type: ignore[arg-type]
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count + 1000:
            raise Refused(f"is not a sound pickle: it numbers an object {argument}, beyond those it has")


def _leaf(value: Any, name: str) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, np.generic):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    raise Refused(f"holds {type(value).__name__.lstrip('_')} as {name[:100]!r}, must be arrays, numbers and strings")


def read_pickle(path: Path) -> Any:
    """Reads a pickle of containers, numbers, strings and arrays.

    Args:
        path: a pickle of protocol 0 to 5, written by Python 2 or 3.

    Returns:
        The pickle's object.

    Raises:
        Refused: if the pickle holds anything else.
        Exception: of any kind, if the pickle is damaged.
    """
    check_pickles(path, 1)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # A pickle can claim more bytes than there are. A file object would make room for them, a memory map does not.
        return plain_tree(_Unpickler(data, encoding="latin1").load(), _leaf)
