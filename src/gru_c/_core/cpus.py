"""How many processors this process may use: its affinity mask and the CPU quota of its cgroup."""

import os
from pathlib import Path, PurePosixPath


def available(root: str = "/") -> int:
    """At least one. A quota of one and a half processors makes two."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min([cpus, *_quotas(Path(root))])


def _quotas(root):
    """Processors, rounded up, that each cgroup from this process's own to the top allows."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:                                # version 2, alone or beside version 1
            mounts, files = ("sys/fs/cgroup/unified", "sys/fs/cgroup"), ("cpu.max",)
        elif "cpu" in controllers.split(","):
            mounts = (f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu")
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        mount = next((root / name for name in mounts if os.path.isdir(root / name)), None)
        # A container may see only the top. A path with ".." is outside of what is mounted here.
        group = PurePosixPath("." if ".." in path.split("/") else path.strip("/"))
        for folder in (group, *group.parents) if mount else ():
            words = " ".join(_read(mount / folder / file) for file in files).split()
            if len(words) == 2 and all(map(_is_number, words)):
                quota, period = map(int, words)
                if quota > 0 and period > 0:
                    yield -(-quota // period)


def _is_number(word):
    """Not "max", nor -1, nor anything of many digits."""
    return word.isascii() and word.isdecimal() and len(word) < 20


def _read(path):
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):                          # ValueError: a NUL in the path
        return ""
