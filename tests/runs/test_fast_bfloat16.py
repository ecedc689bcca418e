import pytest

from kfpn.runs.fast_bfloat16 import has_fast_bfloat16


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx512_bf16", True), ("fpu amx_bf16", True), ("fpu avx512f amx_int8", False)]
)
def test_the_flags_of_a_processor_tell_whether_it_has_bfloat16(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert has_fast_bfloat16(tmp_path / "cpuinfo") is expected
    assert has_fast_bfloat16(tmp_path / "none") is False
