"""Tells whether the processor has instructions for bfloat16."""

from pathlib import Path

FLAGS = {"amx_bf16", "avx512_bf16"}
"""Flags of /proc/cpuinfo on x86, one of which is enough."""


def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether the processor multiplies bfloat16 in instructions of its own; False where that is not known."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    return any(not FLAGS.isdisjoint(line.split()) for line in lines if line.startswith("flags"))
