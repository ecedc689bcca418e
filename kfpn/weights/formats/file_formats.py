"""Reads files of weights in four formats, recognised by their content, without running any code that they hold."""

import dataclasses
import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from kfpn.weights.formats.safe_values import Refused, from_bfloat16, plain_array, plain_tree
from kfpn.weights.formats.unpickle import check_pickles, read_pickle

Kind = Literal["torch", "pickle", "safetensors", "hdf5"]

KINDS = {"torch": "PyTorch (.pth, .pt)", "pickle": "pickle (.pkl)", "safetensors": "safetensors", "hdf5": "HDF5 (.h5)"}
"""Format -> its name in messages."""

# A file of torch before 1.6 begins with torch.serialization.MAGIC_NUMBER, 0x1950a86a20f9469cfc6c, as a pickle's LONG1.
LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Older versions ran code from some files in spite of weights_only: CVE-2025-32434.
OLDEST_TORCH = (2, 6)

# Bytes: the limit of safetensors itself for its header.
LONGEST_HEADER = 100_000_000
SAFE_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class File:
    """The content of a file of weights, whose maker is not yet identified.

    Attributes:
        path: the file.
        kind: its format.
        content: of a torch or pickle file the top object, with its nested dicts; of a safetensors file {name: array}; of an
            HDF5 file {path inside the file: array}. All arrays are NumPy's, float32 in place of float16 and bfloat16.
    """

    path: Path
    kind: Kind
    content: dict[str, Any]


def read_file(path: str | Path) -> File:
    """Reads a file of weights; its format is recognised by its content and not by its name.

    Args:
        path: of a PyTorch, pickle, safetensors or HDF5 file.

    Raises:
        ValueError: with the file's name, if it can't be read, is damaged, is of another format, or holds something that
            could run code.
    """
    path = Path(path).expanduser()
    kind = _recognise_kind(path)
    size = f"{path.stat().st_size} bytes"
    try:
        content = READERS[kind](path)
    except Refused as error:
        raise ValueError(f"{path}: {error}") from (error.__cause__ or error)
    except MemoryError as error:
        raise ValueError(f"{path}: needs more memory than there is ({size})") from error
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ValueError(
            f"{path}: is truncated or damaged ({size} of {KINDS[kind]}: {reason}); copy or download it again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: must hold a dict of named arrays, holds {type(content).__name__}; "
            "save a state_dict: torch.save(model.state_dict(), path)"
        )
    return File(path, kind, content)


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file, 64 hexadecimal digits."""
    return digest(path, "sha256")


def digest(path: str | Path, algorithm: str) -> str:
    """Returns a hash of a file, in hexadecimal digits.

    Args:
        path: a file.
        algorithm: its name in hashlib, such as "sha256".
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _recognise_kind(path: Path) -> Kind:
    head = _head(path)
    if not head:
        raise ValueError(f"{path}: is empty (0 bytes); copy or download it again")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: is a git-lfs pointer, not the file itself; run `git lfs pull` where it came from")
    if re.match(rb"\s*(<!doctype|<html|<head|<\?xml)", head.removeprefix(b"\xef\xbb\xbf"), re.IGNORECASE):
        raise ValueError(f"{path}: is a web page (a login or an error, say), not weights; download the file itself")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or LEGACY_TORCH in head[:32]:
        return "torch"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    # First protocols 2 to 5, then a dict, a list or an OrderedDict in Python 2's protocols 0 and 1.
    if re.match(rb"\x80[\x02-\x05]|\(dp|\(lp|\}q|ccollections\n", head):
        return "pickle"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        return "safetensors"
    hint = "; it is compressed: unpack it first" if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) else ""
    raise ValueError(
        f"{path}: must be {', '.join(KINDS.values())}, is none of these (it begins with {head[:8]!r}){hint}"
    )


def _head(path: Path) -> bytes:
    if not path.exists():
        raise ValueError(f"{path}: does not exist (looked in {path.parent.resolve()})")
    if path.is_dir():
        raise ValueError(f"{path}: must be a file, is a folder")
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, is a device or pipe")
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from error


def _read_torch(path: Path) -> Any:
    if _head(path).startswith(b"PK"):
        _check_zip(path)
    else:
        # Five pickles come before the bytes: magic number, version, the machine's sizes, the object, its storages' names.
        check_pickles(path, 5)
    try:
        import torch
    except ImportError as error:
        raise Refused(
            "is a PyTorch file: reading it needs torch, which is not installed: pip install 'kfpn[torch]'"
        ) from error
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_TORCH:
        raise Refused(
            f"is a PyTorch file: reading it safely needs torch 2.6 or later (CVE-2025-32434), got {torch.__version__}"
        )
    try:
        top = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refused(_why_torch_refused(str(error), path)) from error
    return plain_tree(top, lambda value, name: _from_torch(torch, value, name))


def _why_torch_refused(text: str, path: Path) -> str:
    # torch's own message suggests to load the file unsafely, so only the names in it are passed on.
    if unsafe := re.search(r"GLOBAL (\S+)", text):
        return (
            f"holds {unsafe[1]}, which is refused: building what a file names can run any code. "
            "Where it was written, save the weights alone: torch.save(model.state_dict(), path)"
        )
    return (
        f"is truncated or damaged ({path.stat().st_size} bytes), or holds more than weights. Copy or download it again, "
        "or save it anew where it was written: torch.save(model.state_dict(), path)"
    )


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    if any(name.endswith("constants.pkl") for name in names):
        raise Refused(
            "is a TorchScript model; save its weights: torch.save(torch.jit.load(path).state_dict(), other_path)"
        )
    if not any(name.split("/")[-1] == "data.pkl" for name in names):
        is_npz = bool(names) and all(name.endswith(".npy") for name in names)
        what = "an .npz file of NumPy" if is_npz else f"a zip file that is not PyTorch's (of {', '.join(names[:3])})"
        raise Refused(f"must be {', '.join(KINDS.values())}, is {what}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        # torch.save does not compress, so a sound file never needs more memory than its size on disk.
        raise Refused("is a PyTorch file that was packed anew, with compression; unzip and save it with torch.save")


def _from_torch(torch: Any, value: Any, name: str) -> Any:
    if isinstance(value, torch.dtype | torch.device | torch.layout):
        return str(value)
    if not isinstance(value, torch.Tensor):
        raise Refused(f"holds {type(value).__name__} as {name[:100]!r}, must be tensors, numbers and strings")
    kind = (
        "sparse" if value.layout != torch.strided
        else "quantised" if value.is_quantized
        else "empty (of device meta)" if value.device.type == "meta"
        else ""
    )  # fmt: skip
    if kind:
        raise Refused(f"holds the {kind} tensor {name[:100]!r}, must be a dense one: save it as numbers")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise Refused(f"holds the expanded tensor {name[:100]!r}, must have its own numbers: save it .contiguous()")
    value = value.detach().resolve_conj().resolve_neg()
    try:
        return plain_array((value.float() if value.dtype in (torch.bfloat16, torch.half) else value).numpy())
    except TypeError as error:
        raise Refused(f"holds the tensor {name[:100]!r} of {value.dtype}, which NumPy does not have") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        import safetensors
    except ImportError as error:
        raise Refused(
            "is a safetensors file: reading it needs safetensors, which is not installed: pip install safetensors"
        ) from error
    arrays = {}
    for name, entry in safetensors.deserialize(path.read_bytes()):
        if entry["dtype"] == "BF16":
            flat = from_bfloat16(entry["data"])
        elif entry["dtype"] in SAFE_DTYPES:
            flat = np.frombuffer(entry["data"], SAFE_DTYPES[entry["dtype"]])
        else:
            raise Refused(f"holds {name!r} of {entry['dtype']}, which NumPy does not have")
        arrays[name] = plain_array(flat.reshape(entry["shape"]))
    return arrays


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    sets: dict[str, h5py.Dataset] = {}
    with h5py.File(path, "r") as file:
        # visititems follows neither soft nor external links, so no other file is read.
        file.visititems(lambda name, item: sets.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        for name, data in sets.items():
            if data.is_virtual or data.external:
                raise Refused(f"keeps {name!r} in another file, must hold all its arrays itself")
        # Without this check, a small file could fill the memory: a data set that was never written, or that is compressed,
        # can claim a terabyte.
        total, most = sum(data.nbytes for data in sets.values()), max(2 * path.stat().st_size, 2**30)
        if total > most:
            raise Refused(f"says that it holds {total} bytes of arrays, but is only {path.stat().st_size} bytes long")
        try:
            return {name: plain_array(np.asarray(data[()])) for name, data in sets.items()}
        except Refused as error:
            names = [name for name, data in sets.items() if data.dtype.kind not in "biufc"]
            raise Refused(f"{error} ({', '.join(map(repr, names[:3]))})") from None


READERS: dict[Kind, Callable[[Path], Any]] = {
    "torch": _read_torch,
    "pickle": read_pickle,
    "safetensors": _read_safetensors,
    "hdf5": _read_hdf5,
}
