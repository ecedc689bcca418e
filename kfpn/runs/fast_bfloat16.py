"""Tells whether the processor of this machine computes fast in bfloat16."""

import os
from functools import cache
from pathlib import Path

DENIED = "KFPN_FAST_BFLOAT16"
"""Environment variable: with 0, the processor is taken as one without these instructions."""
MATRIX_UNITS = "amx_bf16"
BFLOAT16_FLAGS = (MATRIX_UNITS, "avx512_bf16")
"""Instructions of x86 processors for products in bfloat16, as Linux calls them. oneDNN, which computes TensorFlow's convolutions, uses them."""
LOWER_ISAS = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of oneDNN's variable ONEDNN_MAX_CPU_ISA that keep it from these instructions."""
WITHOUT_MATRIX_UNITS = (*LOWER_ISAS, "AVX512_CORE_BF16", "AVX10_1_512", "AVX512_CORE_FP16")
"""Values that keep it from the matrix units."""


def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether the processor has instructions for products in bfloat16, and TensorFlow's kernels may use them.

    `KFPN_FAST_BFLOAT16=0` in the environment denies it. `TF_ENABLE_ONEDNN_OPTS=0` and a low `ONEDNN_MAX_CPU_ISA` keep the kernels from it.

    Args:
        cpuinfo: where Linux lists a processor's instructions.
    """
    return _may_be_used(LOWER_ISAS) and not _flags(cpuinfo).isdisjoint(BFLOAT16_FLAGS)


def has_matrix_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether the processor has matrix units for bfloat16 (AMX), see `has_fast_bfloat16`."""
    return _may_be_used(WITHOUT_MATRIX_UNITS) and MATRIX_UNITS in _flags(cpuinfo)


def _may_be_used(too_low: tuple[str, ...]) -> bool:
    if any(os.environ.get(name, "").lower() in ("0", "false") for name in (DENIED, "TF_ENABLE_ONEDNN_OPTS")):
        return False
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() not in too_low


@cache
def _flags(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(word for line in lines if line.startswith("flags") for word in line.partition(":")[2].split())
