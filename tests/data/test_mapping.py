"""Which columns are learned: proposed from all rows, changed by whoever knows better, replayed exactly."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.conftest import REPOSITORY
from tests.helpers import byte_tokenizer
from tunelab import DataSpec, UserError, read_data
from tunelab.data import encode_all, read_examples, store
from tunelab.data.advice import ColumnError

SHAPES = json.loads((REPOSITORY / "tests" / "shapes" / "expected.json").read_text(encoding="utf-8"))
READ = [shape for shape in SHAPES if "refused_naming" not in shape]
PAIRS = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(40)]


def learned(rows, **spec):
    return [(e.prompt, e.answer) for e in read_examples(DataSpec(rows=tuple(rows), **spec))]


@pytest.mark.parametrize("shape", READ, ids=lambda shape: shape["file"])
def test_read_again_by_the_mapping_that_was_kept_the_rows_are_the_same(shape):
    source = str(REPOSITORY / "tests" / "shapes" / shape["file"])
    spec = DataSpec(source=source, **shape.get("options", {}))
    first = read_data(spec, shape["learn"])
    bare = DataSpec(source=source, heldout=spec.heldout)
    assert read_data(bare, shape["learn"], first.columns).sha256 == first.sha256


def test_templates_make_prompt_and_completion_of_any_cells():
    row = {"text": "play jazz", "intent": "PlayMusic", "slots": [{"slot": "genre", "value": "jazz"}], "n": 3.0}
    columns = {"prompt": "{text} ({n})", "completion": "{intent}: {slots.value}"}
    assert learned([row], columns=columns) == [("play jazz (3)", "PlayMusic: jazz")]
    assert learned([row], columns={"prompt": "text", "completion": "{slots:json}"}) == [
        ("play jazz", '[{"slot": "genre", "value": "jazz"}]')
    ]


def test_labels_are_learned_as_the_words_that_are_given_for_them():
    rows = [{"text": f"mail {n}", "label": n % 2} for n in range(20)]
    assert learned(rows, labels={"0": "ham", "1": "spam"})[:2] == [("mail 0", "ham"), ("mail 1", "spam")]
    with pytest.raises(UserError, match="the label '1' has no word in labels"):
        learned(rows[1:2], labels={"0": "ham"})


@pytest.mark.parametrize(
    "row",
    [
        {"uid": "a1", "frage": "Was ist das hier?", "antwort": "Ein Haus"},
        {"uid": "a1", "frage": "Was ist das hier?", "antwort": "Ein Haus", "tags": ["x", "y"]},
        {
            "frage": "Was ist das hier?",
            "antwort": "Ein Haus",
            "rejected": "Ein langer falscher Text, der abgelehnt wurde",
        },
    ],
    ids=["id", "list", "rejected"],
)
def test_the_columns_that_are_advised_work_and_are_no_id_list_or_rejected(row):
    rows = [{key: f"{value} {n}" if isinstance(value, str) else value for key, value in row.items()} for n in range(9)]
    for n, one in enumerate(rows):
        one.update({"uid": f"a{n}"} if "uid" in row else {})
    with pytest.raises(UserError) as caught:
        learned(rows)
    words = shlex.split(str(caught.value).partition("--columns ")[2].partition(", in Python")[0])
    columns = dict(word.split("=") for word in words)
    assert set(columns.values()) == {"frage", "antwort"}
    assert len(learned(rows, columns=columns)) == 9


def test_advice_is_quoted_for_the_shell():
    with pytest.raises(UserError) as caught:
        learned([{"my question": f"what is {n}", "the reply": f"it is {n}"} for n in range(5)])
    assert "'prompt=my question'" in str(caught.value)


def test_rows_of_many_are_on_the_disk_and_give_what_those_in_memory_give(monkeypatch):
    spec = DataSpec(rows=tuple(PAIRS), heldout=0.2, limit=20)
    expected = read_data(spec)
    monkeypatch.setattr(store, "IN_MEMORY", 5)
    monkeypatch.setattr(store, "AT_ONCE", 7)
    found = read_data(spec)
    assert not isinstance(found.train, list)
    assert found.sha256 == expected.sha256
    assert list(found.train) == list(expected.train)
    assert list(found.heldout[2:4]) == list(expected.heldout[2:4])
    assert found.train[-1] == expected.train[-1]
    assert len(found.unused) == len(expected.unused)


TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %}<call>{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}"
    "</call>{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_calls_of_tools_are_read_where_the_template_knows_them_and_never_learned():
    (shape,) = (one for one in SHAPES if one["file"] == "tool_calls.jsonl")
    examples = read_examples(DataSpec(source=str(REPOSITORY / "tests" / "shapes" / shape["file"])))
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TOOLS
    (row, *_), notes = encode_all(examples, tokenizer, 2048)
    text = tokenizer.decode(row.input_ids)
    scored = tokenizer.decode([i for i, learned in zip(row.input_ids, row.scored, strict=True) if learned])
    assert "<call>" in text
    assert "<|im_start|>tool" in text
    assert "<call>" not in scored
    assert scored == examples[0].answer + "<|im_end|>"
    assert any("calls of tools" in note for note in notes)


def test_an_answer_of_weight_0_is_read_and_not_learned():
    turns = [("user", "A?", 1), ("assistant", "No.", 0), ("user", "Sure?", 1), ("assistant", "Yes.", 1)]
    row = {"messages": [{"role": role, "content": text, "weight": weight} for role, text, weight in turns]}
    tokenizer = byte_tokenizer()
    (encoded,), notes = encode_all(read_examples(DataSpec(rows=(row,))), tokenizer, 2048)
    scored = tokenizer.decode([i for i, learned in zip(encoded.input_ids, encoded.scored, strict=True) if learned])
    assert "No." in tokenizer.decode(encoded.input_ids)
    assert scored == "Yes.<|im_end|>"
    assert any("weight 0" in note for note in notes)


def test_real_files_are_read_as_they_were_meant(shared_data):
    banking = DataSpec(
        source=str(shared_data / "banking77" / "train.csv"), heldout=str(shared_data / "banking77" / "test.csv")
    )
    split = read_data(banking)
    assert split.columns == {"prompt": "text", "completion": "category"}
    assert (len(split.train), len(split.heldout)) == (10_003, 3_080)
    instruct = read_data(DataSpec(source=str(shared_data / "instruct_small" / "instruction-data.json")))
    assert instruct.columns == {"prompt": "instruction", "input": "input", "completion": "output"}
    seeds = read_data(DataSpec(source=str(shared_data / "self_instruct" / "seed_tasks.jsonl")))
    assert seeds.columns == {"prompt": "instruction", "input": "input", "completion": "output"}
    assert len(seeds.train) + len(seeds.heldout) >= 175
    snips = str(shared_data / "snips_slots" / "dev.jsonl")
    columns = {"prompt": "text", "completion": "{intent}: {slots.value}"}
    assert any(e.answer == "RateBook: this, saga, 0, 6" for e in read_examples(DataSpec(source=snips, columns=columns)))


def chat(*texts):
    return [{"role": "user" if place % 2 == 0 else "assistant", "content": text} for place, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": chat("q", "a"), "chosen": chat("q", "a"), "rejected": chat("q", "bad")}, ["q", "a"]),
        ({"messages": chat("q", "a"), "prompt": "q", "completion": "a"}, ["q", "a"]),
        ({"prompt": chat("q", "early", "next"), "response": "final"}, ["q", "early", "next", "final"]),
        ({"question": "2 + 2?", "choices": ["8", "2", "24", "4"], "answer": 3}, "D"),
        ({"question": "2 + 2?", "choices": {"text": ["4", "5"], "label": ["1", "2"]}, "answerKey": "1"}, "A"),
        ({"question": "?", "choices": {"A": "x", "B": "y", "C": None}, "answer": "B"}, "B"),
        ({"question": "who?", "answer": "she", "paragraphs": [{"title": "a"}, {"title": "b"}]}, ["who?", "she"]),
    ],
    ids=[
        "a copy with the answer",
        "a copy of the answer",
        "an answer beside turns",
        "numbers",
        "names",
        "none",
        "texts",
    ],
)
def test_rows_of_public_sets_say_what_they_mean(row, expected):
    (example,) = read_examples(DataSpec(rows=(row,)))
    said = [m.content for m in example.messages]
    assert (said if isinstance(expected, list) else example.answer) == expected


@pytest.mark.parametrize("good", [(True, False), ("True", "False"), (1, 0), ("1", "0"), (1.0, 0.0)])
@pytest.mark.parametrize("turns", [False, True], ids=["text", "turns"])
def test_answers_that_nobody_wants_are_never_learned(good, turns):
    rows = [
        {
            "prompt": chat(f"q{n}") if turns else f"q{n}",
            "completion": chat("", f"a{n}")[1:] if turns else f"a{n}",
            "label": g,
        }
        for n, g in enumerate(good)
    ]
    assert learned(rows) == [("q0", "a0")]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "assistant", "tool_calls": [{"function": ["get"], "arguments": {}}]}]},
        {"prompt": "a", "completion": "b", "history": 5},
        {"question": "a", "choices": {"text": list("abcdefghijklmnopqrstuvwxyzabc"), "label": None}, "answer": 2},
        {"question": "a", "choices": ["x", "y"], "answer": "²"},
        {"prompt": "a", "completion": "b", "n": 10**5000},
        {"": {"from": None, "value": None}},
    ],
    ids=["a call", "history", "choices", "a digit", "a number", "no name"],
)
def test_cells_of_another_kind_are_refused_in_words(row):
    with pytest.raises(UserError) as caught:
        learned([row])
    assert "row 1" in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Små børn får brød på øen"),
        ("cp1252", "Você não está só e amanhã também"),
        ("cp1252", "El niño está aquí mañana"),
        ("cp1250", "Dziękuję bardzo za szybką wysyłkę paczki do domu"),
        ("cp1250", "Příliš žluťoučký kůň úpěl"),
    ],
)
def test_letters_of_the_west_and_of_the_centre_are_told_apart(tmp_path, encoding, text):
    path = tmp_path / "a.csv"
    path.write_bytes("".join(["prompt,completion\n", *(f"{text} {n},ok\n" for n in range(20))]).encode(encoding))
    assert read_examples(DataSpec(source=str(path)))[0].prompt == f"{text} 0"


def test_texts_that_begin_alike_are_no_labels():
    opening = "Read this e-mail and answer with its urgency, in one word and nothing else.\n\n"
    rows = [{"Nachricht": f"{opening}I wait for {n}.", "Dringlichkeit": ("low", "high")[n % 2]} for n in range(40)]
    with pytest.raises(ColumnError) as refused:
        read_data(DataSpec(rows=rows))
    assert refused.value.advised == {"prompt": "Nachricht", "completion": "Dringlichkeit"}
