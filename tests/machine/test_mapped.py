"""What was read of a mapped weight file is given back, and nothing is lost by that."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time

import psutil
import pytest
import torch
from safetensors.torch import save_file

from tunelab.machine import mapped as files
from tunelab.machine.mapped import give_back, given_back_while_read

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does it")
NUMBERS = 16 * 2**20  # of four bytes


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """What counts as a large file."""
    monkeypatch.setattr(files, "AT_ONCE", NUMBERS)


def of_files() -> int:
    """Bytes of mapped files in this process's memory."""
    return psutil.Process().memory_info().shared


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"one": torch.arange(NUMBERS, dtype=torch.int32)}, path)
    return path


def mapped(path) -> torch.Tensor:
    """All of a file's bytes, as it is mapped when a model is read."""
    storage = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=path.stat().st_size)
    return torch.tensor([], dtype=torch.uint8).set_(storage)


def test_what_was_read_is_given_back_and_read_again_where_it_is_wanted(file):
    content = mapped(file)
    before, total = of_files(), int(content.sum())
    assert of_files() - before > 3 * NUMBERS
    give_back([file])
    assert of_files() - before < NUMBERS
    assert int(content.sum()) == total


def test_a_link_is_followed_as_in_the_hubs_cache(file, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    content = mapped(link)
    content.sum()
    before = of_files()
    give_back([link])
    assert before - of_files() > 3 * NUMBERS


def test_what_was_written_to_stays_and_so_does_what_other_files_hold(file, tmp_path):
    content = mapped(file)
    content[5_000_000] = 77
    other = tmp_path / "other.safetensors"
    other.write_bytes(file.read_bytes())
    held = mapped(other)
    held.sum()
    before = of_files()
    give_back([file])
    assert content[5_000_000] == 77
    assert before - of_files() < NUMBERS


def test_it_goes_on_while_a_model_is_read_and_ends_with_it(file):
    content = mapped(file)
    before = of_files()
    with given_back_while_read([file]):
        content.sum()
        until = time.monotonic() + 20
        while of_files() - before > NUMBERS and time.monotonic() < until:
            time.sleep(0.05)
        assert of_files() - before < NUMBERS
    assert not [thread for thread in threading.enumerate() if thread.name == "mapped files"]


def test_small_files_stay_for_whoever_reads_them_next(file, monkeypatch):
    monkeypatch.setattr(files, "AT_ONCE", 8 * NUMBERS)
    content = mapped(file)
    content.sum()
    before = of_files()
    give_back([file])
    assert before - of_files() < NUMBERS
    assert files.most_mapped(NUMBERS) == NUMBERS
    assert files.most_mapped(80 * NUMBERS) == 8 * NUMBERS


def test_another_file_whose_name_is_no_text_hinders_nothing(file, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    odd.write_bytes(b"anything")
    content = mapped(file)
    content.sum()
    before = of_files()
    with open(odd, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ):
        give_back([file])
    assert before - of_files() > 3 * NUMBERS
