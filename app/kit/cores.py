"""The number of cores that this process may use."""

import math
import os
from pathlib import Path


def available_cores() -> int:
    """The cores in this process's affinity mask, limited by its container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, container_quota(Path("/sys/fs/cgroup")))))


def container_quota(cgroup: Path) -> float:
    """A container's CPU quota in cores, from cgroups v2 or v1; infinity where unlimited."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return math.inf
    return math.inf if quota.strip() in ("max", "-1") else float(quota) / float(period)
