"""Makes the learners' copies of all notebooks from their solutions.

    python -m notebooks.generate

A learner's copy is the solution without the lines between the markers (`notebooks.markers`), and without the outputs
that those lines decide (`notebooks.depends`). The solution itself is put in order as well: nothing stays of the machine
that it ran on, and nbgrader is told which of its cells are written and which are checks. A cell tagged `check` looks at
the exercises between it and the check before.
"""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from notebooks.depends import depending
from notebooks.markers import is_exercise, is_marked, stripped

FOLDER = Path(__file__).parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SCHEMA = 3  # of nbgrader's metadata


def solutions(folder: Path = FOLDER) -> list[Path]:
    """The files that the tutorial is made of, in the order in which it is read."""
    return sorted((folder / "solutions").glob("*.ipynb"))


def copy_of(solution: Path) -> Path:
    """Where the learner's copy of a solution stands."""
    return solution.parent.parent / solution.name


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def text_of(notebook: NotebookNode) -> str:
    """A notebook as its file."""
    return nbformat.writes(notebook) + "\n"


def in_order(notebook: NotebookNode) -> NotebookNode:
    """The solution as it is kept: no times and versions, printed lines in one piece, nbgrader's marks."""
    tidy = copy.deepcopy(notebook)
    tidy.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in tidy.cells:
        kept = {name: cell.metadata[name] for name in ("tags",) if cell.metadata.get(name)}
        cell.metadata = NotebookNode(kept | _nbgrader(cell))
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return tidy


def learners_copy(solution: NotebookNode) -> NotebookNode:
    """The notebook that a learner opens.

    Raises:
        MarkerError: markers don't come in pairs.
    """
    learner = copy.deepcopy(solution)
    code = [cell for cell in learner.cells if cell.cell_type == "code"]
    for place in depending([cell.source for cell in code]):
        code[place].outputs, code[place].execution_count = [], None
    for cell in learner.cells:
        cell.source = stripped(cell.source, cell.cell_type)
    return learner


def checks(notebook: NotebookNode) -> list[tuple[NotebookNode, list[NotebookNode]]]:
    """Each check, with the cells it looks at: those that a learner writes in since the check before."""
    found, written = [], []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if is_exercise(cell.source):
            written.append(cell)
        if is_check(cell):
            found.append((cell, written))
            written = []
    return found


def is_check(cell: NotebookNode) -> bool:
    return "check" in cell.metadata.get("tags", [])


def _nbgrader(cell: NotebookNode) -> dict[str, dict[str, object]]:
    """What nbgrader wants to know of a cell; nothing of most. An answer in words is graded by a person."""
    written, check = is_marked(cell.source), is_check(cell)
    if not (written or check):
        return {}
    graded = check or cell.cell_type == "markdown"
    known = {"grade": graded, "grade_id": cell.id, "locked": check, "solution": written, "task": False}
    return {"nbgrader": known | ({"points": 1} if graded else {}) | {"schema_version": SCHEMA}}


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs in which what was printed piece by piece stands in one."""
    joined: list[NotebookNode] = []
    for out in outputs:
        out.get("metadata", {}).clear()
        if joined and out.output_type == "stream" and joined[-1].get("name") == out.name:
            joined[-1].text += out.text
        else:
            joined.append(out)
    return joined


def main() -> None:
    for path in solutions():
        solution = in_order(read(path))
        path.write_text(text_of(solution), encoding="utf-8")
        copy_of(path).write_text(text_of(learners_copy(solution)), encoding="utf-8")
        print(f"{copy_of(path).name}: {len(checks(solution))} checks")


if __name__ == "__main__":
    main()
