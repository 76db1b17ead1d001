"""Shared fixtures. No test needs the Hub, and none touches the user's own runs."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

# Most tests run in several processes. Each keeps to its cores, and so does everything it starts: trainings that each
# use all cores take longer than one after the other. Where there are more processes than cores, two share one: a test
# that waits for a page leaves it to the other. Those marked `alone` run one by one and have all cores.
if hasattr(os, "sched_setaffinity") and (worker := os.environ.get("PYTEST_XDIST_WORKER")):
    cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    number = int(worker.removeprefix("gw"))
    os.sched_setaffinity(0, cores[number::workers] or [cores[number % len(cores)]])

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from playground import loopback
from tests.helpers import tiny_llama
from tunelab.config import RunConfig
from tunelab.machine import libraries
from tunelab.spec import Stage, TrainConfig

libraries.prepare()  # as every program of the project does, before torch is imported
loopback.exempt()  # tests ask the app they start

# A tiny model needs as long for a few general instructions as for all else: what is forgotten is measured while
# training only in the tests that are about it, which ask for it.
TrainConfig.model_fields["forgetting_rows"].default = 0
for model in (TrainConfig, Stage, RunConfig):
    model.model_rebuild(force=True)

# no limit of time for an example, and the same examples on every machine
settings.register_profile("project", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("project")

REPOSITORY = Path(__file__).parent.parent
ALONE = {"test_quick_adapter"}  # a training that a browser looks at needs all cores; `make test` names its folder
# each of their tests is long, and needs none of the others
SPREAD = {"test_notebooks", "test_readme"}
# whole runs: seconds each, and many
RUNS = "test_invariants test_chain test_live test_evaluation test_trained_rows test_architectures test_families".split()
SLOW = ALONE | SPREAD | {*RUNS, "browser", "test_processes", "test_ladder", "test_sweep"}
# what takes longest begins first, so that no process is left alone with it at the end
LONGEST_FIRST = (
    "test_notebooks",
    "test_readme",
    "browser",
    "test_families",
    "measure",
    "model",
    "test_cli",
    "export",
    "answer",
    "train",
    "playground",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what is slow, and what one process shall do together: the tests of a file, where they share fixtures."""
    for item in items:
        place = item.path.relative_to(REPOSITORY / "tests").with_suffix("")
        if "starter" in item.fixturenames or SLOW & set(place.parts):
            item.add_marker("slow")
        if ALONE & set(place.parts):
            item.add_marker("alone")
        item.add_marker(pytest.mark.xdist_group(item.nodeid if SPREAD & set(place.parts) else str(place)))

    def rank(item: pytest.Item) -> int:
        parts = item.path.relative_to(REPOSITORY / "tests").with_suffix("").parts
        return next((n for n, name in enumerate(LONGEST_FIRST) if name in parts), len(LONGEST_FIRST))

    items.sort(key=rank)


def pytest_collection():
    gc.disable()  # while modules are imported


def pytest_collection_finish():
    """Objects of imported modules are kept to the end: loading a model collects garbage, and need not look at them."""
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    gc.collect()
    gc.freeze()
    gc.enable()


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
    from tunelab.model.starter import starter_path

    return str(starter_path())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets, which are no part of the project."""
    folder = Path(os.environ.get("TUNELAB_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (TUNELAB_SHARED_DATA)")
    return folder
