"""Conversations in the markers of chat templates, and in the requests of services, become turns without a marker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import WORDS
from tunelab import DataSpec, UserError, read_data
from tunelab.data.marked import marked_turns

TURNS = [
    ("system", "Be kind."),
    ("user", "say {w}"),
    ("assistant", "{w} it is"),
    ("user", "again"),
    ("assistant", "{w}!"),
]


def chatml(turns):
    return "".join(f"<|im_start|>{role}\n{words}<|im_end|>\n" for role, words in turns)


def llama_3(turns):
    each = (f"<|start_header_id|>{role}<|end_header_id|>\n\n{words}<|eot_id|>" for role, words in turns)
    return "<|begin_of_text|>" + "".join(each)


def gemma(turns):
    names = {"assistant": "model"}
    each = (f"<start_of_turn>{names.get(role, role)}\n{words}<end_of_turn>\n" for role, words in turns)
    return "<bos>" + "".join(each)


def zephyr(turns):
    return "".join(f"<|{role}|>\n{words}</s>\n" for role, words in turns)


def phi_3(turns):
    return "".join(f"<|{role}|>\n{words}<|end|>\n" for role, words in turns) + "<|endoftext|>"


def llama_2(turns):
    text, system = "", ""
    for role, words in turns:
        if role == "system":
            system = f"<<SYS>>\n{words}\n<</SYS>>\n\n"
        elif role == "user":
            text += f"<s>[INST] {system}{words} [/INST]"
            system = ""
        else:
            text += f" {words} </s>"
    return text


DIALECTS = {f.__name__: f for f in (chatml, llama_3, gemma, zephyr, phi_3, llama_2)}


@pytest.mark.parametrize("write", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("column", ["text", "conversation"])
def test_a_column_in_a_templates_markers_is_read_as_turns(write, column):
    rows = [{column: write([(role, words.replace("{w}", word)) for role, words in TURNS])} for word in WORDS]
    split = read_data(DataSpec(rows=rows, heldout=4))
    assert len(split.train) + len(split.heldout) == len(WORDS)
    for example in (*split.train, *split.heldout):
        word = example.answer.removesuffix("!")
        assert word in WORDS
        assert [(m.role, m.content) for m in example.messages] == [(r, t.replace("{w}", word)) for r, t in TURNS]


said = st.text("abc .!?\nä7", min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize("write", DIALECTS.values(), ids=DIALECTS)
@given(system=st.none() | said, pairs=st.lists(st.tuples(said, said), min_size=1, max_size=4))
def test_what_was_written_is_what_is_read(write, system, pairs):
    turns = [("system", system)] if system else []
    for asked, answered in pairs:
        turns += [("user", asked), ("assistant", answered)]
    assert [(turn["role"], turn["content"]) for turn in marked_turns(write(turns))] == turns
    waiting = write(turns[:-1]) + {chatml: "<|im_start|>assistant\n", gemma: "<start_of_turn>model\n"}.get(write, "")
    assert [(turn["role"], turn["content"]) for turn in marked_turns(waiting)] == turns[:-1]


@pytest.mark.parametrize(
    "text", ["", "say <|im_start|>user\nred", "[inst] no", "<s>", "a [INST] b [/INST] c", "<|pad|>x"]
)
def test_other_texts_are_none(text):
    assert marked_turns(text) is None


def requests(word):
    asked, answered = [{"text": f"say {word}"}], [{"text": f"{word} it is"}]
    contents = [{"role": "user", "parts": asked}, {"role": "model", "parts": answered}]
    return {
        "Gemini": {"contents": contents},
        "Gemini, told": {
            "systemInstruction": {"role": "system", "parts": [{"text": "Be kind."}]},
            "contents": contents,
        },
        "OpenAI, of two": {
            "input": {
                "messages": [{"role": "user", "content": f"say {word}"}],
                "tools": [],
                "parallel_tool_calls": True,
            },
            "preferred_output": [{"role": "assistant", "content": f"{word} it is"}],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        },
    }


@pytest.mark.parametrize("kind", requests(""))
def test_rows_for_the_services_are_read(kind):
    split = read_data(DataSpec(rows=[requests(word)[kind] for word in WORDS], heldout=4))
    for example in (*split.train, *split.heldout):
        word = example.answer.split()[0]
        expected = [("user", f"say {word}"), ("assistant", f"{word} it is")]
        told = [("system", "Be kind.")] if kind == "Gemini, told" else []
        assert [(m.role, m.content) for m in example.messages] == told + expected
    assert any("non_preferred_output" in note for note in split.notes) == (kind == "OpenAI, of two")


def test_questions_in_turn_that_nobody_answers_are_no_conversations():
    rows = [{"question_id": n, "category": "writing", "turns": [f"say {w}", f"again {w}"]} for n, w in enumerate(WORDS)]
    with pytest.raises(UserError, match="no columns to learn from"):
        read_data(DataSpec(rows=rows, heldout=4))
