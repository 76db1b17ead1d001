"""What the container, service or job that this process runs in may use: Linux control groups, version 2 and 1.

A process stands in one group, and every group above it limits it as well: what is left is the least of what they have
left. A group's memory also counts the files that the system keeps at hand; they are given up as soon as memory is
needed, so they are none of what is used. Source: the kernel's documentation, admin-guide/cgroup-v2.rst and
cgroup-v1/memory.rst; what can be given up is counted as `si_mem_available` counts it for the whole machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
COUNTERS = Path("/proc/vmstat")
BOOT = Path("/proc/sys/kernel/random/boot_id")
GIVEN_UP = ("inactive_file", "active_file", "slab_reclaimable")
UNLIMITED = 1 << 60  # version 1 has a huge number where there is no limit


def memory_limit_bytes() -> int | None:
    """Memory that this process and its neighbours in the container may hold; None without a limit."""
    return min((limit for folder in _groups("memory") if (limit := _limit(folder))), default=None)


def free_memory_bytes() -> int | None:
    """Memory that can still be had inside the container's limits; None without a limit."""
    left = []
    for folder in _groups("memory"):
        limit, used = _limit(folder), _number(folder, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None:
            left.append(max(0, limit - max(0, used - _given_up(folder))))
    return min(left, default=None)


def cpus() -> float | None:
    """Processors' worth of time that may be used; None without a limit."""
    return min((quota for folder in _groups("cpu") if (quota := _quota(folder))), default=None)


@dataclass(frozen=True)
class Kills:
    """How many processes the system has ended because memory ran out. None: it does not tell."""

    here: int | None  # in this process's own group
    anywhere: int | None  # on the machine, since it was started
    boot: str  # which start of the machine it is about


def memory_kills() -> Kills:
    """The kernel's counters of processes that it ended for want of memory, as they stand now."""
    groups = _groups("memory")
    here = _counter(groups[-1] / "memory.events") if groups else None
    if here is None and groups:  # version 1
        here = _counter(groups[-1] / "memory.oom_control")
    return Kills(here, _counter(COUNTERS), _text(BOOT).strip())


def _counter(path: Path) -> int | None:
    found = dict(line.split()[:2] for line in _text(path).splitlines() if " " in line).get("oom_kill", "")
    return int(found) if found.isdigit() else None


def _groups(controller: str) -> list[Path]:
    """The folders of the groups that this process is in, from the outermost one to its own. Those above the container,
    and all but its own where only that is shown, are not there."""
    mount, path = ROOT, "/"
    for line in _text(MEMBERSHIP).splitlines():
        _, controllers, where = line.split(":", 2)
        if controller in controllers.split(","):  # version 1: a tree for each controller
            mount, path = ROOT / controller, where
            break
        if not controllers:  # version 2: one tree for all
            path = where
    parts = PurePosixPath(path).parts[1:]
    if ".." in parts:  # its own group lies outside of what is shown
        parts = ()
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _limit(folder: Path) -> int | None:
    """Bytes that a group may hold; above `memory.high` its processes are slowed down until they hold less."""
    limits = (_number(folder, "memory.max", "memory.limit_in_bytes"), _number(folder, "memory.high"))
    return min((limit for limit in limits if limit is not None and limit < UNLIMITED), default=None)


def _given_up(folder: Path) -> int:
    """Bytes of a group that the system gives up when they are needed: files it keeps at hand."""
    stat = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines() if " " in line)
    # in version 1 the plain names leave out what groups below hold, and `total_` counts it
    return sum(int(stat.get(f"total_{name}", stat.get(name, 0))) for name in GIVEN_UP)


def _quota(folder: Path) -> float | None:
    both = _text(folder / "cpu.max").split()
    if len(both) == 2:
        return int(both[0]) / int(both[1]) if both[0] != "max" else None
    quota, period = _number(folder, "cpu.cfs_quota_us"), _number(folder, "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _number(folder: Path, *names: str) -> int | None:
    """The number in the first of these files that is there; None for 'max', and where there is none."""
    for name in names:
        text = _text(folder / name).strip()
        if text:
            return int(text) if text.lstrip("-").isdigit() else None
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
