"""Tests static ONNX files in TensorRT-RTX, whose parser and builder need no GPU. docs/tensorrt.md says how to run this."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from kfpn.export.onnx.write_onnx import export_onnx

PYTHON = os.environ.get("KFPN_TENSORRT_RTX_PYTHON")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="KFPN_TENSORRT_RTX_PYTHON must name the python of an environment with tensorrt-rtx-cu12"
)


def _parsed(path, *options):
    # It runs in a process of its own, because the parser can crash and its package needs an environment of its own.
    script = Path(__file__).with_name("tensorrt_rtx_build.py")
    done = subprocess.run([PYTHON, script, path, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", autouse=True)
def packages():
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)


def test_a_static_file_is_parsed_without_errors(tiny_workdir, tmp_path):
    result = _parsed(export_onnx(tiny_workdir, tmp_path / "model.onnx", input_shape="1x96x128x3"))
    assert result["parsed"]
    assert result["errors"] == []


def test_a_static_raw_file_becomes_an_engine(tiny_workdir, tmp_path):
    result = _parsed(export_onnx(tiny_workdir, tmp_path / "raw.onnx", input_shape="1x96x128x3", raw=True), "--build")
    assert result["parsed"]
    assert result["errors"] == []
    assert result["engine"] > 0
