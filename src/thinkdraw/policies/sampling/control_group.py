"""How much memory a container or a batch system leaves this process: on Linux a limit of its control group, version 2.

The machine's free memory does not show it, and who goes past it is killed without a word. Kernel documentation,
admin-guide/cgroup-v2, *Memory Interface Files*.
"""

import math
from pathlib import Path


def free_bytes(mounted: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes left in the process's group and all groups around it; infinite where there is no limit.

    mounted: where the groups are. own: the file that names the process's.
    """
    try:
        named = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    groups = [mounted / line.removeprefix("0::").strip("/") for line in named if line.startswith("0::")]
    around = [g for group in groups for g in (group, *group.parents) if g.is_relative_to(mounted)]
    return min((_left(group) for group in around), default=math.inf)


def _left(group: Path) -> float:
    try:
        limit, used = (
            (group / "memory.max").read_text(encoding="utf-8").strip(),
            int((group / "memory.current").read_text(encoding="utf-8")),
        )
        counted = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    except OSError:  # the outermost group has no limit
        return math.inf
    reclaimable = int(counted.get("inactive_file", 0))  # files read long ago, dropped before anyone is refused memory
    return math.inf if limit == "max" else max(0, int(limit) - used + reclaimable)
