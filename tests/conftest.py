"""Shared fixtures. No test needs the Hub, and none touches the user's own runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from playground import loopback
from tests.helpers import tiny_llama
from tunelab import libraries

libraries.prepare()  # as every program of the project does, before torch is imported
loopback.exempt()  # tests ask the app they start

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Every test has its own runs; the starter's cache is shared."""
    monkeypatch.setenv("TUNELAB_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """Folder of a two-layer random model."""
    return str(tiny_llama(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="session")
def starter() -> str:
    """Folder of the embedded model."""
    from tunelab.starter import starter_path

    return str(starter_path())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets, which are no part of the project."""
    folder = Path(os.environ.get("TUNELAB_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (TUNELAB_SHARED_DATA)")
    return folder
