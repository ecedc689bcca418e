import argparse
import collections
import hashlib
import io
import os
import pickle
import struct
import sys
import zipfile

import h5py
import numpy as np
import pytest

from kfpn.weights.formats.file_formats import File, read_file, sha256
from kfpn.weights.formats.unpickle import ALLOWED

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
# The numbers 1, -2 and 0.1 in bfloat16: the upper 16 bits of their float32.
BFLOAT16 = np.array([0x3F80, 0xC000, 0x3DCD], "<u2")
BFLOAT16_VALUES = np.array([1.0, -2.0, 0.10009765625], np.float32)


class Evil:
    """Makes a folder when it is unpickled without any protection."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Named:
    """Asks for a name of a module when it is unpickled, and calls the object of this name."""

    def __init__(self, module, name, *args):
        self.module, self.name, self.args = module, name, args

    def dump(self):
        arguments = pickle.dumps(self.args, 2)[2:-1]
        return b"\x80\x02c" + f"{self.module}\n{self.name}\n".encode() + arguments + b"R."


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else pickle.dumps(data, 2))
    return path


def refusal(path):
    """Returns the message with which `read_file` refuses a file. The message must begin with the file's path."""
    with pytest.raises(ValueError, match=r".") as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


# Pickles


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_read(tmp_path, protocol):
    content = {
        "model": collections.OrderedDict(
            w=WEIGHT, fortran=np.asfortranarray(WEIGHT), none=np.zeros((0, 4), np.float32)
        ),
        "big_endian": WEIGHT.astype(">f8"),
        "counts": np.array([3, -4]),
        "flags": np.array([True, False]),
        "scalar": np.float32(0.5),
        "matching_heuristics": True,
        "__author__": "Caffe2",
        "bytes": b"\x00\xff",
        "no bytes": b"",
        "nested": [1, (2.5, None), {"deep": np.ones(1, np.uint8)}],
        "set": {7},
    }
    file = read_file(write(tmp_path / "model.pkl", pickle.dumps(content, protocol)))
    assert (file.path, file.kind) == (tmp_path / "model.pkl", "pickle")
    assert type(file.content["model"]) is dict
    for name in ("w", "fortran", "none"):
        np.testing.assert_array_equal(file.content["model"][name], content["model"][name], strict=True)
    np.testing.assert_array_equal(file.content["big_endian"], WEIGHT.astype(np.float64), strict=True)
    assert file.content["big_endian"].dtype.isnative
    np.testing.assert_array_equal(file.content["counts"], content["counts"], strict=True)
    np.testing.assert_array_equal(file.content["flags"], content["flags"], strict=True)
    assert file.content["scalar"] == np.float32(0.5)
    assert file.content["matching_heuristics"] is True
    assert file.content["__author__"] == "Caffe2"
    assert (file.content["bytes"], file.content["no bytes"]) == (b"\x00\xff", b"")
    assert file.content["nested"][1] == (2.5, None)
    assert file.content["nested"][2]["deep"].dtype == np.uint8
    assert file.content["set"] == [7]


def test_arrays_that_were_read_can_be_changed(tmp_path):
    array = read_file(write(tmp_path / "model.pkl", {"w": WEIGHT})).content["w"]
    array[:] = 1.0
    assert (array == 1.0).all()


def test_an_array_under_two_names_is_read_as_one_array(tmp_path):
    content = read_file(write(tmp_path / "model.pkl", {"a": WEIGHT, "b": WEIGHT})).content
    assert content["a"] is content["b"]


def test_float16_becomes_float32(tmp_path):
    content = read_file(write(tmp_path / "model.pkl", {"w": np.array([0.5, 65504.0], np.float16)})).content
    np.testing.assert_array_equal(content["w"], np.array([0.5, 65504.0], np.float32), strict=True)


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_a_pickle_of_numpy_1_and_of_numpy_2_is_read(tmp_path, core):
    data = pickle.dumps({"w": WEIGHT}, 2)
    ours = b"numpy._core" if b"numpy._core" in data else b"numpy.core"
    content = read_file(write(tmp_path / "model.pkl", data.replace(ours, core.encode()))).content
    np.testing.assert_array_equal(content["w"], WEIGHT, strict=True)


def python2_pickle():
    """Returns the bytes that cPickle of Python 2 writes for {"blobs": {"conv1_w": [1, 2] as float32}} in protocol 2."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    dtype = b"cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R(K\x03" + text(b"<") + b"NNN" + 2 * b"J\xff\xff\xff\xff"
    dtype += b"K\x00tb"
    raw = np.array([1.0, 2.0], "<f4").tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01K\x02\x85" + dtype + b"\x89" + text(raw) + b"tb"
    return b"\x80\x02}" + text(b"blobs") + b"}" + text(b"conv1_w") + array + b"ss."


def test_a_pickle_of_python_2_is_read(tmp_path):
    content = read_file(write(tmp_path / "R-50.pkl", python2_pickle())).content
    np.testing.assert_array_equal(content["blobs"]["conv1_w"], np.array([1.0, 2.0], np.float32), strict=True)


def test_bytes_of_python_2_above_127_are_read_unchanged(tmp_path):
    data = python2_pickle().replace(np.array([1.0, 2.0], "<f4").tobytes(), np.array([-1.5, 3e38], "<f4").tobytes())
    content = read_file(write(tmp_path / "R-50.pkl", data)).content
    np.testing.assert_array_equal(content["blobs"]["conv1_w"], np.array([-1.5, 3e38], np.float32))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, protocol):
    path = write(tmp_path / "evil.pkl", pickle.dumps({"w": Evil(tmp_path / "ran")}, protocol))
    assert f"needs {os.mkdir.__module__}.mkdir, which is refused" in refusal(path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())  # the file really runs code
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("copyreg", "_reconstructor"),
        ("numpy", "load"),
        ("numpy", "ndarray.__new__"),
        ("numpy", "core.multiarray._reconstruct"),
        ("numpy.core.multiarray", "os.system"),
        ("numpy.lib.npyio", "DataSource"),
        ("numpy.testing._private.utils", "runstring"),
        ("kfpn.weights.formats.unpickle", "pickle.loads"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.storage", "_load_from_bytes"),
        ("functools", "partial"),
        ("_codecs", "decode"),
    ],
)
def test_a_pickle_with_a_name_that_is_not_on_the_list_is_refused_by_this_name(tmp_path, module, name):
    data = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93)R."
    assert f"{module}.{name}, which is refused" in refusal(write(tmp_path / "evil.pkl", data))


def test_a_codec_that_is_not_latin1_is_refused(tmp_path):
    assert "calls _codecs.encode with 'zlib'" in refusal(
        write(tmp_path / "evil.pkl", Named("_codecs", "encode", "a", "zlib").dump())
    )


def test_numpy_ndarray_cannot_be_called(tmp_path):
    message = refusal(write(tmp_path / "evil.pkl", Named("numpy", "ndarray", (10**15,), "f4").dump()))
    assert "numpy.ndarray" in message


def test_a_huge_shape_without_its_data_takes_no_memory(tmp_path):
    data = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + pickle.dumps((10**15,), 2)[2:-1]
    path = write(tmp_path / "evil.pkl", b"\x80\x02}U\x01w" + data[2:] + b"U\x01b\x87Rs.")
    assert read_file(path).content["w"].size == 0


def test_an_array_with_fewer_bytes_than_its_shape_is_damaged(tmp_path):
    data = python2_pickle().replace(b"(K\x01K\x02\x85", b"(K\x01K\x03\x85")
    assert "truncated or damaged" in refusal(write(tmp_path / "model.pkl", data))


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([None, {}], dtype=object), "array of objects"),
        (np.array(["a", "bc"]), "dtype 'U2'"),
        (np.zeros(2, [("a", "f4"), ("b", "i8")]), "dtype 'V12'"),
        (np.array(["2020-01-01"], "datetime64[D]"), "dtype 'M8'"),
    ],
)
def test_an_array_of_anything_but_numbers_is_refused(tmp_path, array, text):
    assert text in refusal(write(tmp_path / "model.pkl", {"w": array}))


def test_attributes_of_the_stand_ins_cannot_be_set(tmp_path):
    before = {cls: dict(vars(cls)) for cls in set(ALLOWED.values()) if cls.__module__ != "builtins"}
    for module, name in ALLOWED:
        for state in ({"__new__": 1}, (None, {"__new__": dict})):
            data = b"\x80\x02c" + f"{module}\n{name}\n".encode() + pickle.dumps(state, 2)[2:-1] + b"b."
            refusal(write(tmp_path / "evil.pkl", data))
    assert {cls: dict(vars(cls)) for cls in before} == before


def test_a_persistent_id_is_refused(tmp_path):
    assert "persistent id" in refusal(write(tmp_path / "data.pkl", b"\x80\x02}X\x01\x00\x00\x00wK\x01Qs."))


def test_a_huge_memo_index_takes_no_memory(tmp_path):
    assert "numbers an object" in refusal(write(tmp_path / "evil.pkl", b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."))


def test_a_list_that_holds_itself_is_refused(tmp_path):
    loop = []
    loop.append(loop)
    assert "nests deeper than 32 at 'a[0]" in refusal(write(tmp_path / "evil.pkl", {"a": loop}))


def test_lists_that_repeat_one_list_many_times_are_not_expanded(tmp_path):
    part = [WEIGHT]
    for _ in range(25):
        part = [part] * 100
    content = read_file(write(tmp_path / "model.pkl", {"a": part})).content
    assert content["a"][0] is content["a"][99]


def test_a_whole_module_in_a_pickle_is_refused(tmp_path):
    message = refusal(write(tmp_path / "model.pkl", {"model": argparse.Namespace(lr=0.1)}))
    assert "needs argparse.Namespace, which is refused" in message
    assert "torch.save" in message


@pytest.mark.parametrize("top", [[1, 2], WEIGHT, "text"])
def test_a_top_object_that_is_no_dict_is_refused(tmp_path, top):
    assert "must hold a dict of named arrays, holds" in refusal(write(tmp_path / "model.pkl", top))


# safetensors


def safetensors_bytes(entries):
    """Returns the bytes of a safetensors file of (name, dtype, shape, data)."""
    parts, at = [], 0
    for name, dtype, shape, data in entries:
        parts.append(f'"{name}":{{"dtype":"{dtype}","shape":{list(shape)},"data_offsets":[{at},{at + len(data)}]}}')
        at += len(data)
    header = ("{" + ",".join(parts) + "}").encode()
    return struct.pack("<Q", len(header)) + header + b"".join(entry[3] for entry in entries)


def test_safetensors_are_read_and_bfloat16_becomes_float32(tmp_path):
    pytest.importorskip("safetensors")
    entries = [
        ("weight", "F32", (2, 3), WEIGHT.tobytes()),
        ("half", "F16", (2,), np.array([0.5, -1.0], np.float16).tobytes()),
        ("brain", "BF16", (3, 1), BFLOAT16.tobytes()),
        ("count", "I64", (), np.int64(7).tobytes()),
        ("flag", "BOOL", (2,), b"\x01\x00"),
    ]
    file = read_file(write(tmp_path / "model.bin", safetensors_bytes(entries)))
    assert file.kind == "safetensors"
    expected = {
        "weight": WEIGHT,
        "half": np.array([0.5, -1.0], np.float32),
        "brain": BFLOAT16_VALUES[:, None],
        "count": np.array(7),
        "flag": np.array([True, False]),
    }
    assert set(file.content) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(file.content[name], array, strict=True)
        assert file.content[name].flags.writeable


def test_a_file_that_the_safetensors_package_wrote_is_read(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({"w": WEIGHT}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(read_file(tmp_path / "model.safetensors").content["w"], WEIGHT, strict=True)


def test_float8_is_refused_by_name(tmp_path):
    pytest.importorskip("safetensors")
    path = write(tmp_path / "model.safetensors", safetensors_bytes([("w", "F8_E4M3", (1,), b"\x00")]))
    assert "holds 'w' of F8_E4M3" in refusal(path)


def test_safetensors_whose_offsets_leave_the_file_are_damaged(tmp_path):
    pytest.importorskip("safetensors")
    data = safetensors_bytes([("w", "F32", (2, 3), WEIGHT.tobytes())])
    for wrong in (data.replace(b"[0,24]", b"[0,99]"), data.replace(b"[2, 3]", b"[2, 9]"), data + b"more"):
        assert "truncated or damaged" in refusal(write(tmp_path / "model.safetensors", wrong))


def test_without_the_safetensors_package_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = write(tmp_path / "model.safetensors", safetensors_bytes([("w", "F32", (2, 3), WEIGHT.tobytes())]))
    assert refusal(path).endswith("needs safetensors, which is not installed: pip install safetensors")


# HDF5


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name.replace("__", "/"), data=array)
    return path


def test_hdf5_is_read_as_arrays_by_their_paths(tmp_path):
    path = hdf5(tmp_path / "resnet.h5", conv1_conv__conv1_conv__kernel=WEIGHT, top=np.array([0.5], np.float16))
    file = read_file(path)
    assert file.kind == "hdf5"
    assert set(file.content) == {"conv1_conv/conv1_conv/kernel", "top"}
    np.testing.assert_array_equal(file.content["conv1_conv/conv1_conv/kernel"], WEIGHT, strict=True)
    np.testing.assert_array_equal(file.content["top"], np.array([0.5], np.float32), strict=True)


def test_strings_in_hdf5_are_refused_by_name(tmp_path):
    assert "array of dtype object, must be numbers ('words')" in refusal(hdf5(tmp_path / "a.h5", words=[b"a", b"bc"]))


def test_hdf5_that_takes_its_data_from_another_file_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("w", (2,), "f4", external=[(str(tmp_path / "secret"), 0, 8)])
    assert "keeps 'w' in another file" in refusal(tmp_path / "a.h5")


def test_links_of_hdf5_to_other_files_are_not_followed(tmp_path):
    hdf5(tmp_path / "other.h5", w=WEIGHT)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["own"] = WEIGHT
        file["linked"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/w")
    assert set(read_file(tmp_path / "a.h5").content) == {"own"}


def test_hdf5_arrays_that_were_never_written_take_no_memory(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("w", (2**40,), "f4", chunks=(1024,))
    assert "says that it holds 4398046511104 bytes of arrays" in refusal(tmp_path / "a.h5")


# PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_torch_files_of_both_formats_are_read(tmp_path, torch, new):
    weight = torch.from_numpy(WEIGHT.copy())
    content = {
        "model": collections.OrderedDict(w=torch.nn.Parameter(weight), transposed=weight.t()),
        "brain": torch.tensor([1.0, -2.0, 0.1], dtype=torch.bfloat16),
        "half": torch.tensor([0.5], dtype=torch.half),
        "num_batches_tracked": torch.tensor(3),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "none": torch.zeros(0, 4),
        "epoch": 12,
        "what": "text",
        "where": torch.device("cpu"),
        "optimizer": {"state": {0: {"momentum": weight}}, "betas": (0.9, 0.99), "list": [None, True]},
    }
    torch.save(content, tmp_path / "model.bin", _use_new_zipfile_serialization=new)
    file = read_file(tmp_path / "model.bin")
    assert file.kind == "torch"
    np.testing.assert_array_equal(file.content["model"]["w"], WEIGHT, strict=True)
    np.testing.assert_array_equal(file.content["model"]["transposed"], WEIGHT.T, strict=True)
    np.testing.assert_array_equal(file.content["brain"], BFLOAT16_VALUES, strict=True)
    np.testing.assert_array_equal(file.content["half"], np.array([0.5], np.float32), strict=True)
    np.testing.assert_array_equal(file.content["num_batches_tracked"], np.array(3), strict=True)
    np.testing.assert_array_equal(file.content["bytes"], np.array([1, 255], np.uint8), strict=True)
    np.testing.assert_array_equal(file.content["double"], np.array([0.1]), strict=True)
    assert file.content["none"].shape == (0, 4)
    assert (file.content["epoch"], file.content["what"], file.content["where"]) == (12, "text", "cpu")
    np.testing.assert_array_equal(file.content["optimizer"]["state"][0]["momentum"], WEIGHT)
    assert file.content["optimizer"]["betas"] == (0.9, 0.99)
    assert type(file.content["model"]) is dict
    assert file.content["model"]["w"].flags.writeable


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_torch_file_with_a_namespace_is_refused_by_its_name(tmp_path, torch, new):
    content = {"model": {"w": torch.zeros(1)}, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=new)
    message = refusal(tmp_path / "model.pth")
    assert "holds argparse.Namespace, which is refused" in message
    assert "torch.save(model.state_dict(), path)" in message


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_whole_torch_module_is_refused_by_its_name(tmp_path, torch, new):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pth", _use_new_zipfile_serialization=new)
    assert "holds torch.nn.modules.linear.Linear, which is refused" in refusal(tmp_path / "model.pth")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_torch_file_that_runs_code_is_refused_and_does_not_run(tmp_path, torch, new):
    torch.save({"w": Evil(tmp_path / "ran")}, tmp_path / "evil.pth", _use_new_zipfile_serialization=new)
    assert f"holds {os.mkdir.__module__}.mkdir, which is refused" in refusal(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_tensor_instead_of_a_dict_is_refused(tmp_path, torch):
    torch.save(torch.zeros(3), tmp_path / "model.pth")
    assert "must hold a dict of named arrays, holds ndarray" in refusal(tmp_path / "model.pth")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage is deprecated")
def test_tensors_that_are_not_plain_are_refused_by_name(tmp_path, torch):
    tensors = {
        "sparse tensor 'model.w'": torch.eye(3).to_sparse(),
        "quantised tensor 'model.w'": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "empty (of device meta) tensor 'model.w'": torch.zeros(3, device="meta"),
        "expanded tensor 'model.w'": torch.zeros(1).expand(10**12),
        "tensor 'model.w' of torch.float8_e4m3fn": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    for text, tensor in tensors.items():
        torch.save({"model": {"w": tensor}}, tmp_path / "model.pth")
        assert text in refusal(tmp_path / "model.pth")


def test_a_torchscript_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"model/{name}", b"")
    assert "is a TorchScript model" in refusal(tmp_path / "model.pt")


def test_a_torch_file_packed_with_compression_is_refused(tmp_path, torch):
    torch.save({"w": torch.zeros(10**6)}, tmp_path / "model.pth")
    with (
        zipfile.ZipFile(tmp_path / "model.pth") as old,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert "packed anew, with compression" in refusal(tmp_path / "small.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_torch_file_of_another_pickle_protocol_is_refused(tmp_path, torch):
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pth", pickle_protocol=4)
    assert "or holds more than weights" in refusal(tmp_path / "model.pth")


def test_without_torch_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    for path in (tmp_path / "model.pth", write(tmp_path / "old.pth", magic + 4 * pickle.dumps(1001, 2))):
        assert refusal(path) == (
            "is a PyTorch file: reading it needs torch, which is not installed: pip install 'kfpn[torch]'"
        )


@pytest.mark.parametrize("version", ["2.5.1", "1.13.1+cu117", "2.5.0a0+git1234"])
def test_an_old_torch_is_refused(tmp_path, torch, monkeypatch, version):
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pth")
    monkeypatch.setattr(torch, "__version__", version)
    assert refusal(tmp_path / "model.pth").endswith(f"needs torch 2.6 or later (CVE-2025-32434), got {version}")


# Damage, and files that are something else


def samples(folder):
    """Returns {kind: bytes} of an undamaged file of every kind that can be written here."""
    files = {"pickle 0": pickle.dumps({"w": WEIGHT}, 0), "pickle 2": pickle.dumps({"w": WEIGHT}, 2)}
    files["pickle 5"] = pickle.dumps({"w": WEIGHT}, 5)
    files["hdf5"] = hdf5(folder / "sound", a__w=WEIGHT).read_bytes()
    files["safetensors"] = safetensors_bytes([("w", "F32", (2, 3), WEIGHT.tobytes())])
    return files


def torch_samples(torch):
    files = {}
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save({"w": torch.from_numpy(WEIGHT.copy())}, buffer, _use_new_zipfile_serialization=new)
        files[f"torch {new}"] = buffer.getvalue()
    return files


def test_a_file_truncated_at_any_place_is_refused(tmp_path):
    for what, data in samples(tmp_path).items():
        for kept in sorted({len(data) * part // 8 for part in range(1, 8)} | {16, len(data) - 1}):
            message = refusal(write(tmp_path / "model", data[:kept]))
            assert "truncated or damaged" in message, (what, kept)
            assert f"{kept} bytes" in message


def test_a_torch_file_truncated_at_any_place_is_refused(tmp_path, torch):
    for what, data in torch_samples(torch).items():
        for kept in sorted({len(data) * part // 8 for part in range(1, 8)} | {40, len(data) - 1}):
            message = refusal(write(tmp_path / "model", data[:kept]))
            assert "truncated or damaged" in message, (what, kept)
            assert f"{kept} bytes" in message


@pytest.mark.parametrize(
    "kind", ["pickle 0", "pickle 2", "pickle 5", "hdf5", "safetensors", "torch True", "torch False"]
)
def test_a_file_with_wrong_bytes_is_read_or_refused_with_a_value_error(tmp_path, kind):
    data = samples(tmp_path)[kind] if "torch" not in kind else torch_samples(pytest.importorskip("torch"))[kind]
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    random = np.random.default_rng(0)
    for _ in range(100):
        spoilt = bytearray(data)
        for at in random.integers(0, len(data), 3):
            spoilt[at] = random.integers(0, 256)
        path = write(tmp_path / "model", bytes(spoilt))
        try:
            assert isinstance(read_file(path), File)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "none.pth") == f"does not exist (looked in {tmp_path})"


def test_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path) == "must be a file, is a folder"


def test_a_device_is_refused():
    with pytest.raises(ValueError, match="/dev/null: must be a file, is a device or pipe"):
        read_file("/dev/null")


def test_an_empty_file_is_refused(tmp_path):
    assert "is empty (0 bytes)" in refusal(write(tmp_path / "model.pth", b""))


@pytest.mark.parametrize(
    "page",
    [b"<!DOCTYPE html><html>", b"\n  <html lang='en'>", b"<?xml version='1.0'?><Error>", b"\xef\xbb\xbf<!doctype"],
)
def test_a_web_page_is_refused(tmp_path, page):
    assert "is a web page" in refusal(write(tmp_path / "model.pth", page))


def test_the_error_for_a_git_lfs_pointer_says_what_to_run(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:3c25\nsize 167266879\n"
    assert "`git lfs pull`" in refusal(write(tmp_path / "model.pkl", pointer))


@pytest.mark.parametrize("data", [b"hello, world", b"\x00", b"{}", b"\x80\x09abc", b"\xff" * 100])
def test_the_error_for_an_unknown_file_lists_the_known_kinds(tmp_path, data):
    message = refusal(write(tmp_path / "model.pth", data))
    assert message.startswith("must be PyTorch (.pth, .pt), pickle (.pkl), safetensors, HDF5 (.h5), is none of these")


def test_the_error_for_a_compressed_file_says_to_unpack_it(tmp_path):
    assert refusal(write(tmp_path / "model.tar.gz", b"\x1f\x8b\x08abc")).endswith("it is compressed: unpack it first")


def test_an_npz_is_refused(tmp_path):
    np.savez(tmp_path / "model.npz", w=WEIGHT)
    assert refusal(tmp_path / "model.npz").endswith("is an .npz file of NumPy")


def test_the_error_for_a_zip_of_something_else_names_a_file_in_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"")
    assert refusal(tmp_path / "model.keras").endswith(
        "is a zip file that is not PyTorch's (of config.json, model.weights.h5)"
    )


def test_an_error_has_the_original_error_as_its_cause(tmp_path):
    path = write(tmp_path / "model.pkl", b"\x80\x02}")
    with pytest.raises(ValueError, match="truncated") as caught:
        read_file(path)
    assert caught.value.__cause__ is not None


def test_sha256_is_the_hash_of_the_files_bytes(tmp_path):
    data = bytes(range(256)) * 9000  # the file is read in more than one piece
    assert sha256(write(tmp_path / "a", data)) == hashlib.sha256(data).hexdigest()
