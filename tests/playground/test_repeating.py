"""Updates that come in several."""

from __future__ import annotations

import gradio as gr

from playground.parts.repeating import repeated, repeating


def test_each_update_says_again_what_those_before_it_have_said():
    @repeating
    def handler(first):
        yield {"button": first, "text": "reading"}
        yield {"text": "read"}
        yield {"button": gr.skip(), "more": gr.skip()}

    given = list(handler("on"))
    assert given == [
        {"button": "on", "text": "reading"},
        {"button": "on", "text": "read"},
        {"button": "on", "text": "read", "more": gr.skip()},
    ]


def test_what_a_person_may_write_into_is_told_only_when_an_update_names_it():
    updates = iter([{"box": "", "text": "a"}, {"text": "b"}, {"box": "again"}, {"text": "c"}])
    assert list(repeated(updates, once=["box"])) == [
        {"box": "", "text": "a"},
        {"text": "b"},
        {"text": "b", "box": "again"},
        {"text": "c"},
    ]
