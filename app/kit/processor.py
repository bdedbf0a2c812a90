"""What the processor can do."""

from pathlib import Path

_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether it has instructions for bfloat16, as Linux says of x86 processors; elsewhere, nothing says so."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("flags") and not _BFLOAT16.isdisjoint(line.split()) for line in lines)
