"""What a container leaves, on folders like the kernel's: groups in groups, both versions, files kept at hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tunelab.machine import containers, hardware

GB = 10**9


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """A function that writes what /proc/self/cgroup says, and the files of each group."""

    def write(membership, groups):
        (tmp_path / "membership").write_text(membership)
        for path, files in groups.items():
            folder = tmp_path / "fs" / path
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(f"{text}\n")

    monkeypatch.setattr(containers, "ROOT", tmp_path / "fs")
    monkeypatch.setattr(containers, "MEMBERSHIP", tmp_path / "membership")
    write("0::/\n", {})
    return write


def memory(limit, current, inactive=0, active=0, shared=0, slab=0):
    """Files of a group in version 2."""
    stat = f"anon {current - inactive - active - shared - slab}\nfile {inactive + active + shared}\nshmem {shared}\n"
    stat += f"inactive_file {inactive}\nactive_file {active}\nslab_reclaimable {slab}"
    return {"memory.max": limit, "memory.current": current, "memory.stat": stat}


def test_without_a_container_there_is_no_limit(cgroups):
    cgroups("0::/user.slice\n", {"user.slice": memory("max", 3 * GB)})
    assert containers.free_memory_bytes() is None
    assert containers.memory_limit_bytes() is None
    assert containers.cpus() is None


def test_files_kept_at_hand_are_free_and_files_in_memory_alone_are_not(cgroups):
    cgroups("0::/\n", {"": memory(8 * GB, 7 * GB, inactive=3 * GB, active=2 * GB)})
    assert containers.free_memory_bytes() == 6 * GB
    cgroups("0::/\n", {"": memory(8 * GB, 7 * GB, inactive=1 * GB, shared=4 * GB, slab=1 * GB)})
    assert containers.free_memory_bytes() == 3 * GB
    assert containers.memory_limit_bytes() == 8 * GB


def test_of_nested_groups_the_one_that_has_least_left_counts(cgroups):
    path = "kubepods/pod1/container2"
    groups = {
        "kubepods": memory(30 * GB, 29 * GB, inactive=1 * GB),  # 2 GB left: its neighbours have the rest
        "kubepods/pod1": memory(16 * GB, 2 * GB),
        path: memory("max", 2 * GB),
    }
    cgroups(f"0::/{path}\n", groups)
    assert containers.free_memory_bytes() == 2 * GB
    assert containers.memory_limit_bytes() == 16 * GB
    cgroups(f"0::/{path}\n", {path: {**memory(12 * GB, 2 * GB), "memory.high": 3 * GB}})
    assert containers.free_memory_bytes() == 1 * GB  # above `high` it would be slowed down


def test_version_1_is_read_as_well(cgroups):
    unlimited = 9223372036854771712
    plain = "inactive_file 1\nactive_file 1\n"  # of the group alone, without those below it
    groups = {
        "memory": {"memory.limit_in_bytes": unlimited, "memory.usage_in_bytes": 9 * GB},
        "memory/docker/abc": {
            "memory.limit_in_bytes": 6 * GB,
            "memory.usage_in_bytes": 5 * GB,
            "memory.stat": f"{plain}total_inactive_file {2 * GB}\ntotal_active_file {1 * GB}",
        },
        "cpu": {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100_000},
        "cpu/docker/abc": {"cpu.cfs_quota_us": 250_000, "cpu.cfs_period_us": 100_000},
    }
    cgroups("4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n", groups)
    assert containers.free_memory_bytes() == 4 * GB
    assert containers.memory_limit_bytes() == 6 * GB
    assert containers.cpus() == 2.5


def test_a_path_that_is_not_shown_inside_leaves_the_outermost_group(cgroups):
    for outside in ("/docker/abc", "/../../elsewhere"):
        cgroups(f"0::{outside}\n", {"": memory(8 * GB, 5 * GB)})
        assert containers.free_memory_bytes() == 3 * GB


def test_the_tightest_quota_of_processor_time_counts(cgroups):
    cgroups("0::/a/b\n", {"a": {"cpu.max": "150000 100000"}, "a/b": {"cpu.max": "max 100000"}})
    assert containers.cpus() == 1.5
    assert hardware.physical_cores() == 1


def test_the_machine_has_no_more_free_than_its_container_leaves(cgroups, monkeypatch):
    machine = SimpleNamespace(total=64 * GB, available=40 * GB)
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: machine)
    assert hardware.available_memory_bytes() == 40 * GB
    cgroups("0::/\n", {"": memory(8 * GB, 7 * GB, inactive=5 * GB)})
    assert hardware.available_memory_bytes() == 6 * GB
    assert hardware.total_memory_bytes() == 8 * GB


def test_files_that_hold_no_numbers_limit_nothing(cgroups):
    cgroups("0::/\n", {"": {"memory.max": "much", "memory.current": "", "memory.stat": "x", "cpu.max": "?"}})
    assert containers.free_memory_bytes() is None
    assert containers.cpus() is None


def test_processes_ended_for_memory_are_counted_in_the_own_group_and_on_the_machine(cgroups, tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "COUNTERS", tmp_path / "vmstat")
    monkeypatch.setattr(containers, "BOOT", tmp_path / "boot")
    assert containers.memory_kills() == containers.Kills(None, None, "")
    (tmp_path / "vmstat").write_text("nr_free_pages 3\noom_kill 7\n")
    (tmp_path / "boot").write_text("abc\n")
    events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0"
    cgroups("0::/pod/own\n", {"pod": {"memory.events": "oom_kill 9"}, "pod/own": {"memory.events": events}})
    assert containers.memory_kills() == containers.Kills(2, 7, "abc")
    cgroups("4:memory:/own\n", {"memory/own": {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5"}})
    assert containers.memory_kills() == containers.Kills(5, 7, "abc")
