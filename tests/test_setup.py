"""The set-up tells what is missing, in words; what is in the repository is not ignored by accident."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

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
