"""Runs solutions from top to bottom, keeps their outputs, and makes the learners' copies.

    python -m notebooks.run                  all of them
    python -m notebooks.run 03 05            those whose names begin so

Each runs in a fresh kernel, in an empty folder, with runs of its own: what it prints depends on nothing that lay on
this machine. Outputs that tell of the machine, or that nobody wants to read, are refused: absolute paths, tracebacks,
remains of progress bars. The minutes that the last cell has measured are written into the first one and into the tables
of TEACHING.md.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence

from nbformat import NotebookNode

from notebooks import timetable
from notebooks.generate import copy_of, in_order, learners_copy, read, solutions, text_of

LONGEST = 3600  # seconds of a cell
LARGEST = 300_000  # characters of a notebook with its outputs
# one parameter a line, with the size that a quick look and the tests take
PARAMETER = re.compile(r"^(?P<name>\w+) = (?P<value>.+?)  # small: (?P<small>.+)$", re.M)
PATHS = ("/home/", "/root/", "/Users/", "/tmp/", "/work/", "C:\\\\Users")
TOOK = re.compile(r"took ([\d.,]+) s\b")
SAID = "**Time.** {} of computing on two cores without a GPU; reading and writing come on top."
TIME = re.compile(r"^\*\*Time\.\*\* .*$", re.M)


def executed(notebook: NotebookNode) -> NotebookNode:
    """The same notebook with the outputs of one run in a fresh kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=LONGEST, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute(env=os.environ | {"TUNELAB_HOME": folder})
    return notebook


def parameters(notebook: NotebookNode) -> NotebookNode:
    """The cell with the sizes: the one tagged `parameters`."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return cell


def small(source: str) -> str:
    """The parameters as a quick look takes them: of each line `NAME = value  # small: other` the other value."""
    return PARAMETER.sub(r"\g<name> = \g<small>", source)


def with_minutes(notebook: NotebookNode) -> NotebookNode:
    """With the time that its last cell has measured in its first one."""
    printed = [out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", [])]
    seconds = [float(found[1].replace(",", "")) for text in printed if (found := TOOK.search(text))]
    if seconds:
        notebook.cells[0].source = TIME.sub(SAID.format(minutes(seconds[-1])), notebook.cells[0].source)
    return notebook


def minutes(seconds: float) -> str:
    """Time for people, never less than it is: '40 seconds', '3 minutes'."""
    if seconds < 100:
        return f"{-(-seconds // 10) * 10:.0f} seconds"
    return f"{-(-seconds // 60):.0f} minutes"


def problems(notebook: NotebookNode) -> Iterator[str]:
    """What must not be in a notebook that is kept, a sentence each."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        for out in cell.outputs:
            text = str(out)
            yield from (f"cell {cell.id}: an output names {path}" for path in PATHS if path in text)
            if out.output_type == "error" or (out.output_type == "stream" and out.name == "stderr"):
                yield f"cell {cell.id}: {text[:200]}"
            if out.output_type == "stream" and ("\r" in out.text or "\x1b" in out.text):
                yield f"cell {cell.id}: remains of a progress bar"
    if (size := len(text_of(notebook))) > LARGEST:
        yield f"{size:,} characters: {LARGEST:,} are allowed"


def main(names: Sequence[str]) -> int:
    chosen = [path for path in solutions() if not names or path.name.startswith(tuple(names))]
    failed = 0
    for path in chosen:
        print(f"running {path.name}", flush=True)
        solution = with_minutes(in_order(executed(read(path))))
        found = list(problems(solution))
        print(*found, sep="\n")
        if found:
            failed += 1
            continue
        path.write_text(text_of(solution), encoding="utf-8")
        copy_of(path).write_text(text_of(learners_copy(solution)), encoding="utf-8")
    timetable.write()
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
