"""What is proposed for the columns of files as people publish them: the words are learned that were meant as the
answer, all that was asked stands in the prompt, and what can't be told is refused with a command that works."""

from __future__ import annotations

import shlex

import pytest

from tunelab import DataSpec, UserError, read_data
from tunelab.data import read_examples

ROWS = 12


def table(**columns):
    """Rows of columns, each a constant or a function of the row's number."""
    return tuple({name: made(n) if callable(made) else made for name, made in columns.items()} for n in range(ROWS))


def asks(n):
    return f"Why does part {n} of the machine stop?"


def text(n):
    return f"Because the belt number {n} is worn, as it is after a long time."


def learned(rows, **spec):
    return [(e.prompt, e.answer) for e in read_examples(DataSpec(rows=tuple(rows), **spec))]


def notes(rows):
    return " ".join(read_data(DataSpec(rows=tuple(rows), heldout=2)).notes)


def refusal(rows):
    with pytest.raises(UserError) as caught:
        learned(rows)
    message = str(caught.value)
    assert len(message) <= 400
    assert "COLUMN" not in message
    return message


def advised(message):
    """The columns of a command that a message advises, as a shell reads them."""
    words = shlex.split(message.partition("--columns ")[2].partition(", in Python")[0].partition(", or ")[0])
    return dict(word.rstrip(".;").split("=", 1) for word in words if "=" in word)


@pytest.mark.parametrize(
    "answer", ["generation", "abstract", "output_text", "model_response", "bestAnswer", "solution"]
)
@pytest.mark.parametrize(
    "beside",
    [
        {"category": lambda n: "abc"[n % 3]},
        {"label": lambda n: n % 3},
        {"topic": "math", "score": 3},
        {"answers": lambda n: n},
        {"answer": lambda n: str(n)},
    ],
    ids=["category", "label", "constant", "count", "number"],
)
def test_text_is_learned_and_no_label_or_number_that_stands_beside(answer, beside):
    rows = table(question=asks, **{answer: text}, **beside)
    assert learned(rows) == [(asks(n), text(n)) for n in range(ROWS)]
    assert all(name in notes(rows).partition("not used")[2] for name in beside)


@pytest.mark.parametrize("asked", ["prompt", "document"])
@pytest.mark.parametrize("label", ["category", "label"])
@pytest.mark.parametrize("unknown", ["wert", "my text"])
def test_text_of_an_unknown_name_beside_labels_is_refused_and_both_are_named(asked, label, unknown):
    rows = table(**{asked: asks, unknown: text, label: lambda n: "abc"[n % 3]})
    message = refusal(rows)
    assert repr(unknown) in message
    assert repr(label) in message
    assert learned(rows, columns=advised(message)) == [(asks(n), text(n)) for n in range(ROWS)]


def test_an_explanation_beside_a_label_of_two_texts_is_asked_about_and_both_texts_stay_in_the_prompt():
    rows = table(premise=asks, hypothesis="It is so.", label=lambda n: "abc"[n % 3], begruendung=text)
    message = refusal(rows)
    for answer, expected in (("begruendung", text(2)), ("label", "c")):
        assert f"completion={answer}" in message
        found = learned(rows, columns={"completion": answer})
        assert found[2] == (f"premise: {asks(2)}\nhypothesis: It is so.", expected)


def test_labels_of_texts_are_learned_beside_what_is_told_about_them():
    rows = table(text=text, title=asks, url="https://x.org/a b", place="Rome, It", label=lambda n: "ab"[n % 2])
    assert learned(rows)[:2] == [(text(0), "a"), (text(1), "b")]


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"query": "SELECT 1", "sql": {"from": {"conds": []}, "limit": 1}}, "SELECT 1"),
        ({"sql": {"human_readable": "SELECT 1", "sel": 1}}, "SELECT 1"),
        ({"answer": {"value": "David", "aliases": ["Dave"], "type": "x"}}, "David"),
        ({"output": {"text": "David", "n": 1}}, "David"),
        ({"answer": {"a": 1}, "solution": "It is so."}, "It is so."),
        ({"answers": [{"a": 1}, {"a": 2}], "best_answer": "It is so."}, "It is so."),
        ({"response": ["It is so."]}, "It is so."),
    ],
    ids=["text beside", "readable", "value", "text", "solution", "objects", "list of one"],
)
def test_of_objects_the_words_are_learned(row, answer):
    rows = [{"question": f"Why {n}?", **row} for n in range(4)]
    assert {said for _asked, said in learned(rows)} == {answer}


@pytest.mark.parametrize("name", ["answer", "output", "labels", "my answer"])
def test_objects_of_an_unknown_kind_are_never_learned_by_a_guess(name):
    rows = [{"question": f"Why {n}?", name: {"tree": {"leaf": [n]}, "k": [1]}} for n in range(4)]
    message = refusal(rows)
    assert advised(message) == {"prompt": "question", "completion": f"{{{name}:json}}"}
    assert learned(rows, columns=advised(message))[1] == ("Why 1?", '{"tree": {"leaf": [1]}, "k": [1]}')


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({"user": lambda n: f"bob{n}", "text": text}, text),
        ({"user": "Jane Doe", "text": text}, text),
        ({"source": lambda n: f"https://cnn.com/{n}", "body": text}, text),
        ({"source": "cnn", "article": text}, text),
        ({"instruction": "Answer.", "question": asks}, lambda n: f"Answer.\n\n{asks(n)}"),
        ({"instruction": "Answer.", "question": asks, "context": text}, lambda n: f"Answer.\n\n{asks(n)}\n\n{text(n)}"),
        ({"instruction": "Answer.", "beitrag": text}, lambda n: f"Answer.\n\n{text(n)}"),
        ({"prompt": lambda n: f"Q: {asks(n)} A:", "question": asks}, lambda n: f"Q: {asks(n)} A:"),
        ({"user": asks}, asks),
    ],
    ids=["name", "full name", "address", "agency", "constant", "context", "unknown text", "contained", "question"],
)
def test_what_was_asked_stands_in_the_prompt(columns, prompt):
    rows = table(**columns, sentiment=lambda n: "ab"[n % 2])
    if "user" in columns and len(columns) == 1:
        rows = table(**columns, assistant=lambda n: "ab"[n % 2])
    assert [asked for asked, _said in learned(rows)] == [prompt(n) for n in range(ROWS)]


@pytest.mark.parametrize(
    "names",
    [
        ("premise", "hypothesis"),
        ("question", "sentence"),
        ("sentence1", "sentence2"),
        ("text_a", "text_b"),
        ("word", "sentence1", "sentence2"),
        ("sentence", "aspect"),
        ("text", "hypothesis"),
        ("claim", "evidence"),
    ],
)
def test_texts_that_are_labelled_together_stand_in_the_prompt_under_their_names(names):
    rows = table(**{name: lambda n, name=name: f"{name} {n}." for name in names}, label=lambda n: "ab"[n % 2], idx=5)
    expected = "\n".join(f"{name}: {name} 3." for name in names)
    assert learned(rows)[3] == (expected, "b")
    first = read_data(DataSpec(rows=rows))
    assert read_data(DataSpec(rows=rows), "instructions", first.columns).sha256 == first.sha256


def test_a_row_in_which_nothing_is_asked_together_is_left_out():
    rows = [*table(premise=text, hypothesis=asks, label="a"), {"premise": "", "hypothesis": None, "label": "a"}]
    assert len(learned(rows)) == ROWS


SERIES = [
    ("option1", "option2", "option3"),
    ("option_a", "option_b", "option_c"),
    ("optionA", "optionB", "optionC"),
    ("opa", "opb", "opc"),
    ("sol1", "sol2", "sol3"),
    ("answerA", "answerB", "answerC"),
    ("ending0", "ending1", "ending2"),
    ("choice_1", "choice_2", "choice_3"),
    ("A", "B", "C"),
]
TEXTS = ("oak", "iron", "salt")
RIGHT = {
    "from 0": lambda n: n % 3,
    "from 1": lambda n: str(n % 3 + 1),
    "floats": lambda n: float(n % 3 + 1),
    "letters": lambda n: "ABC"[n % 3],
    "brackets": lambda n: f"({'ABC'[n % 3]})",
    "words": lambda n: TEXTS[n % 3],
}


@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize("series", SERIES, ids="-".join)
def test_choices_in_a_series_of_columns_stand_in_the_prompt(series, right):
    rows = table(question=asks, **dict(zip(series, TEXTS, strict=True)), label=RIGHT[right])
    shown = "\n\nA. oak\nB. iron\nC. salt"
    assert learned(rows) == [(asks(n) + shown, "ABC"[n % 3]) for n in range(ROWS)]


@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize(
    "cell",
    ['["oak", "iron", "salt"]', "['oak', 'iron', 'salt']", '{"A": "oak", "B": "iron", "C": "salt"}', list(TEXTS)],
)
@pytest.mark.parametrize("asked", ["question", "question_stem"])
def test_choices_in_one_cell_stand_in_the_prompt(asked, cell, right):
    rows = table(**{asked: asks}, options=cell, answerKey=RIGHT[right])
    shown = "\n\nA. oak\nB. iron\nC. salt"
    assert learned(rows) == [(asks(n) + shown, "ABC"[n % 3]) for n in range(ROWS)]


def test_choices_that_are_written_as_a_sentence_stand_in_the_prompt():
    rows = table(question=asks, options="a) oak b) iron", answer=lambda n: "ab"[n % 2])
    assert learned(rows)[1] == (f"{asks(1)}\n\na) oak b) iron", "b")


@pytest.mark.parametrize(
    ("series", "said", "letter"),
    [(("sol1", "sol2", "sol3"), 2, "B"), (("end0", "end1", "end2"), 1, "B"), (("choices",), 1, "B")],
    ids=["from 1", "unknown stem", "list"],
)
def test_numbers_that_prove_nothing_are_said_to_be_a_guess(series, said, letter):
    columns = {"choices": list(TEXTS)} if len(series) == 1 else dict(zip(series, TEXTS, strict=True))
    if series[0] == "end0":
        columns = {name.replace("end", "ending"): value for name, value in columns.items()}
    rows = table(question=asks, **columns, label=said)
    assert {answer for _asked, answer in learned(rows)} == {letter}
    assert "it is a guess that choices are counted from" in notes(rows)


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": ["Why?", "So.", "And?", "Thus."], "source": "x"},
        {"data": ["Why?", "So.", "And?", "Thus."], "id": "1"},
        {"dialog": ["Why?", "So.", "And?", "Thus."], "act": [1, 2, 1, 2]},
        {"conversation": [{"input": "Why?", "output": "So."}, {"input": "And?", "output": "Thus."}]},
        {
            "prompt": "And?",
            "chosen": [
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "So."},
                {"role": "user", "content": "And?"},
                {"role": "assistant", "content": "Thus."},
            ],
            "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}],
        },
    ],
    ids=["texts", "data", "dialog", "pairs", "chosen"],
)
def test_conversations_in_the_dialects_of_public_sets_are_read(row):
    (example,) = read_examples(DataSpec(rows=(row,)))
    turns = [("user", "Why?"), ("assistant", "So."), ("user", "And?"), ("assistant", "Thus.")]
    assert [(m.role, m.content) for m in example.messages] == turns


@pytest.mark.parametrize("name", ["dialogue", "dialog", "conversation", "report"])
@pytest.mark.parametrize("topic", [{}, {"topic": "work"}], ids=["alone", "topic"])
def test_a_dialogue_in_words_is_summed_up(name, topic):
    rows = table(id=lambda n: str(n), **{name: lambda n: f"#A#: Hi {n}\n#B#: Ho"}, summary=text, **topic)
    assert learned(rows)[4] == ("#A#: Hi 4\n#B#: Ho", text(4))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (
            {"translation": {"en": "hi", "de": "hallo"}},
            {"prompt": "{translation.en}", "completion": "{translation.de}"},
        ),
        ({"tokens": ["a", "b"], "tags": ["X", "Y"]}, {"prompt": "{tokens}", "completion": "{tags}"}),
        ({"my x": "a1", "y": "b1"}, {"prompt": "my x", "completion": "y"}),
    ],
    ids=["translation", "lists", "codes"],
)
def test_advice_names_what_would_work(row, columns):
    message = refusal([row] * 4)
    assert advised(message) == columns
    assert learned([row] * 4, columns=columns)


@pytest.mark.parametrize(
    "rows", [[{"a": {"b": [1]}}], [{"q": "Why?", "system": "Be kind."}], [{"prompt": "a", "answer": ""}]]
)
def test_where_nothing_would_work_no_column_is_made_up(rows):
    assert "--columns" not in refusal(rows)


def test_rows_that_are_single_turns_are_refused_with_the_form_to_bring_them_into():
    rows = table(role=lambda n: ("prompter", "assistant")[n % 2], text=text, labels={"name": ["spam"], "value": [0.1]})
    assert '{"messages": [{"role"' in refusal(rows)


@pytest.mark.parametrize("word", ["<noinput>", "nan", "NaN", " <noinput> "])
def test_words_for_an_empty_cell_are_no_part_of_the_prompt_and_that_is_said(word):
    rows = table(instruction=asks, input=lambda n: word if n % 2 else "Box 7", output=text)
    assert [asked for asked, _said in learned(rows)][:2] == [f"{asks(0)}\n\nBox 7", asks(1)]
    assert f"6 cells of 'input' that say {word.strip()} are read as empty" in notes(rows)


def test_of_several_answers_the_first_is_learned_and_that_is_said():
    rows = table(question=asks, answers={"text": ["Denver", "Denver Broncos"], "answer_start": [1, 2]})
    assert {said for _asked, said in learned(rows)} == {"Denver"}
    assert "12 rows give several answers: the first one is learned" in notes(rows)


def test_rows_with_pictures_are_refused_with_the_columns_of_their_text():
    rows = table(image_url="http://x/a.png", question=asks, answer=text)
    message = refusal(rows)
    assert "holds an image" in message
    assert "--columns prompt=question completion=answer" in message


def test_a_columns_own_name_comes_before_names_that_only_hold_one():
    rows = table(query=asks, original_question="What?", response=text, type="x")
    assert learned(rows)[0] == (asks(0), text(0))
    rows = table(question=asks, model_output="no idea", answer=text)
    assert learned(rows)[0] == (asks(0), text(0))
    assert learned(table(original_question=asks, response=text))[0] == (asks(0), text(0))


@pytest.mark.parametrize("asked", ["input", "prompt", "context", "question"])
def test_turns_that_wait_are_answered_by_the_column_beside_them(asked):
    rows = table(**{asked: lambda n: [{"role": "user", "content": asks(n)}]}, output=text)
    assert learned(rows)[0] == (asks(0), text(0))


@pytest.mark.parametrize("asked", ["inputs", "user", "Human"])
@pytest.mark.parametrize("answer", ["targets", "bot", "AI"])
def test_public_names_for_asking_and_answering_are_known(asked, answer):
    assert learned(table(**{asked: asks, answer: text}))[0] == (asks(0), text(0))


def test_what_a_task_is_stands_in_the_prompt_with_its_input():
    (first, *_rest) = learned(table(definition="Say why.", inputs=asks, targets=text))
    assert first == (f"{asks(0)}\n\nSay why.", text(0))


def test_a_score_of_two_texts_is_advised_as_the_answer_and_is_said_to_be_a_number():
    rows = table(sentence1=asks, sentence2=text, score=lambda n: n / 4)
    message = refusal(rows)
    assert advised(message) == {"completion": "score"}
    assert learned(rows, columns=advised(message))[1] == (f"sentence1: {asks(1)}\nsentence2: {text(1)}", "0.25")
    said = " ".join(read_data(DataSpec(rows=tuple(rows), columns=advised(message))).notes)
    assert "the answers are numbers (0.25, …)" in said


def test_advice_follows_the_order_of_columns_and_leaves_out_what_is_always_the_same():
    rows = table(Frage=asks, Antwort=lambda n: f"{n} so", Kanal="per E-Mail an alle im Haus und noch viel mehr Text")
    assert advised(refusal(rows)) == {"prompt": "Frage", "completion": "Antwort"}
    rows = table(Frage=lambda n: f"Was {n} ?", Antwort=text)
    assert advised(refusal(rows)) == {"prompt": "Frage", "completion": "Antwort"}


def test_an_answer_that_never_changes_is_said():
    assert "the answer is the same in all 12 rows ('None')" in notes(table(question=asks, answers=lambda n: ["None"]))
    assert "the same" not in notes(table(question=asks, answer=text))
