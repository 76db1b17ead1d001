"""Examples to compare on are rows that the run never saw, or none, with the reason."""

from __future__ import annotations

import json

from playground.rooms import compare
from tests.helpers import ROWS
from tests.train.test_loop import config
from tunelab import DataSpec, finetune
from tunelab.run.trained import heldout_again


class Root:
    """What the room asks of `Jobs` here."""

    def __init__(self, root):
        self.root = root


def test_where_the_data_has_changed_there_are_no_examples_and_it_says_so(tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    made = config(tiny, steps=1)
    data = made.stages[0].model_copy(update={"data": DataSpec(source=str(path), heldout=4)})
    run = finetune(made.model_copy(update={"stages": (data,)}))
    held = {example.prompt for example in heldout_again(run).heldout}
    assert {question for question, _answer in compare.examples_of(run)} == held
    shown = compare.fresh_examples(Root(run.root), [run.id])
    assert set(shown["choices"]) == held
    assert shown["info"] == compare.HELD_OUT

    path.write_text("\n".join(json.dumps(row) for row in [*ROWS[:3], {"prompt": "new", "completion": "x"}, *ROWS[3:]]))
    assert compare.examples_of(run) == []
    shown = compare.fresh_examples(Root(run.root), [run.id])
    assert shown["choices"] == []
    assert "1 row is new (16 then, 17 now)" in shown["info"]
    assert compare.fresh_examples(Root(run.root), [])["info"] == compare.HELD_OUT
