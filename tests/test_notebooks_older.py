"""The notebooks that are not made from their solutions yet: what is solved are their exercises, in a file beside them.
Each runs from top to bottom in a fresh kernel, and is kept as one run left it."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from notebooks.generate import OLDER
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "notebooks"
NOTEBOOKS = sorted(folder / f"{stem}.ipynb" for stem in OLDER for folder in (FOLDER, FOLDER / "solutions"))
SOLUTIONS = [path for path in NOTEBOOKS if path.parent != FOLDER]
# What is smaller when a notebook is tested: its checks hold at these sizes too, and what is kept was run at its own.
SMALLER = {
    "07_method_ladder": {
        "limit=400": "limit=60",
        "steps=16, batch_size=4": "steps=6, batch_size=2",
        "max_new_tokens=24": "max_new_tokens=3, instructions=2",
        "asked.prompt, max_new_tokens=40": "asked.prompt, max_new_tokens=8",
    },
    "08_multi_stage": {
        "heldout=24": "heldout=12",
        "steps=12, batch_size=8, eval_every=4, eval_rows=24": "steps=12, batch_size=2, eval_every=12, eval_rows=12",
        "early = compare(run, asked.prompt, max_new_tokens=40)": "early = compare(run, asked.prompt, max_new_tokens=8)",
        "late = compare(run, asked.prompt, max_new_tokens=40)": "late = compare(run, asked.prompt, max_new_tokens=8)",
        '"general": probe()': '"general": probe()[:24]',
    },
}


def name(path):
    return str(path.relative_to(FOLDER).with_suffix(""))


def code_of(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def smaller(path):
    """The notebook with the sizes of SMALLER, each of which stands in it exactly once."""
    notebook = nbformat.read(path, as_version=4)
    for own, less in SMALLER.get(name(path), {}).items():
        (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and own in cell.source)
        assert cell.source.count(own) == 1
        cell.source = cell.source.replace(own, less)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_it_runs_from_top_to_bottom(path, starter, tmp_path):
    notebook = smaller(path)
    NotebookClient(notebook, timeout=2400, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    errors = [out for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "error"]
    assert not errors


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_its_outputs_are_of_one_run_in_order_without_paths_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("/home/", "/root/", "/Users/", "/tmp/", "/work/") if word in text]
    assert "playground import" not in text
    assert len(text) < 300_000


@pytest.mark.parametrize("path", SOLUTIONS, ids=name)
def test_a_solution_passes_a_check_of_its_notebook(path):
    checks = [cell for cell in code_of(path) if "assert " in cell]
    assert checks
    assert set(checks) <= set(code_of(FOLDER / path.name))
