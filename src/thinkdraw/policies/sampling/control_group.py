"""The memory that a container or batch system leaves this process.

On Linux it is a limit of the process's control group, version 2. The machine's free memory does not show it, and
the kernel kills a process that exceeds it without a message.
Kernel documentation, admin-guide/cgroup-v2, *Memory Interface Files*.
"""

import math
from pathlib import Path


def free_bytes(mounted: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the bytes left in the process's group and all groups around it.

    The result is infinite without a limit.
    mounted: the folder of the groups.
    own: the file that names the process's group.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    groups = [mounted / line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")]
    nested = [g for group in groups for g in (group, *group.parents) if g.is_relative_to(mounted)]
    return min((_free_in(group) for group in nested), default=math.inf)


def _free_in(group: Path) -> float:
    """Return the bytes left in one group."""
    try:
        limit, used = (
            (group / "memory.max").read_text(encoding="utf-8").strip(),
            int((group / "memory.current").read_text(encoding="utf-8")),
        )
        counters = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    except OSError:  # the outermost group has no limit
        return math.inf
    reclaimable = int(counters.get("inactive_file", 0))  # cached files, which the kernel drops before it refuses memory
    return math.inf if limit == "max" else max(0, int(limit) - used + reclaimable)
