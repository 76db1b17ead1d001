"""The built-in data is real text, the same on every reading, and anybody can check it with help()."""

from __future__ import annotations

import inspect
import pydoc

from tunelab import DataSpec, read_data
from tunelab.data.builtin import python_docs


def test_python_docs_are_the_documentation_of_this_interpreter():
    rows = python_docs()
    assert len(rows) > 1200
    assert rows == python_docs()
    for row in rows[::50]:
        documentation = " ".join((inspect.getdoc(pydoc.locate(row["object"])) or "").split())
        assert row["completion"] in documentation, row
        assert row["object"] in row["prompt"]


def test_no_answer_stands_twice_and_none_is_a_signature():
    answers = [row["completion"] for row in python_docs()]
    assert len({a.casefold() for a in answers}) == len(answers)
    assert not [a for a in answers if "->" in a or a.startswith("(")]
    assert all(20 <= len(a) <= 400 for a in answers)


def test_train_and_heldout_share_no_object():
    split = read_data(DataSpec(source="python-docs", heldout=200))
    objects = {row["prompt"]: row["object"] for row in python_docs()}
    assert len(split.heldout) == 200
    assert not {objects[e.prompt] for e in split.train} & {objects[e.prompt] for e in split.heldout}
