"""What is taken out of sight: a component with `visible="hidden"` stays in the page and keeps what it holds; a layout
(column, row, group) with it stays in sight, so that only False takes it away."""

from __future__ import annotations

import pytest
from gradio.blocks import BlockContext
from gradio.components import FormComponent

from playground import app
from playground.jobs import Jobs
from tunelab import Comparer


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    jobs = Jobs(tmp_path_factory.mktemp("runs"))
    with Comparer(jobs.root) as comparer:
        return list(app.build(jobs, comparer).blocks.values())


def test_no_layout_is_hidden_in_vain(blocks):
    assert not [block.elem_id for block in blocks if isinstance(block, BlockContext) and block.visible == "hidden"]


def test_what_one_writes_or_chooses_is_never_taken_out_of_the_page_by_itself(blocks):
    inputs = [one for one in blocks if isinstance(one, FormComponent)]
    assert len(inputs) > 100
    assert not [one.elem_id or one.label for one in inputs if one.visible is False]
