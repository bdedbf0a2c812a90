"""Features of the processor."""

from pathlib import Path

_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bfloat16; detected on x86 Linux only, False elsewhere."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("flags") and not _BFLOAT16.isdisjoint(line.split()) for line in lines)
