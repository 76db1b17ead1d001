"""Conversations as people write them down: transcripts in one dialect each, and calls of tools in every form."""

from __future__ import annotations

import json

import pytest

from tests.data.templates import tokenizer
from tests.helpers import byte_tokenizer
from tunelab import DataSpec, UserError, read_data
from tunelab.data import encode_all, read_examples


def read(rows, **spec):
    examples = read_examples(DataSpec(rows=rows, **spec))
    return [[(m.role, m.content) for m in example.messages] for example in examples]


def notes_of(rows):
    return " ".join(read_data(DataSpec(rows=rows)).notes)


ANTHROPICS = "\n\nHuman: hi{n}\n\nAssistant: hello\n\nHuman: and?\n\nAssistant:"
TURNS = [("user", "hi{n}"), ("assistant", "hello"), ("user", "and?"), ("assistant", "yes")]


def numbered(value, count=3):
    return [json.loads(json.dumps(value).replace("{n}", str(n))) for n in range(count)]


def spelled(human, assistant, between="\n\n"):
    return ANTHROPICS.replace("Human", human).replace("Assistant", assistant).replace("\n\n", between)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ANTHROPICS, "response": " yes"},
        {"prompt": ANTHROPICS.strip(), "completion": "yes"},
        {"prompt": ANTHROPICS.removesuffix("\n\nAssistant:"), "chosen": "yes", "rejected": "no"},
        {"prompt": ANTHROPICS, "chosen": ANTHROPICS + " yes", "rejected": ANTHROPICS + " no"},
        {"instruction": spelled("USER", "ASSISTANT"), "input": "", "output": "yes"},
        {"chosen": ANTHROPICS + " yes", "rejected": ANTHROPICS + " no"},
        {"conversation": spelled("Human", "Assistant", "\n") + " yes"},
        {"chat": spelled("User", "AI") + " yes"},
        {"text": spelled("### Human", "### Assistant", "") + " yes"},
    ],
)
def test_a_transcript_becomes_its_turns_wherever_it_stands(row):
    assert read(numbered(row)) == [[tuple(turn) for turn in one] for one in numbered(TURNS)]


def test_prompts_that_are_read_as_turns_are_counted():
    assert "3 prompts are transcripts" in notes_of(numbered({"prompt": ANTHROPICS, "response": "yes"}))
    rows = [*numbered({"prompt": "What is {n}?", "response": "x{n}"}), {"prompt": "\n\nHuman: hi", "response": "yes"}]
    assert "1 prompt is a transcript" in notes_of(rows)
    assert read(rows)[3] == [("user", "hi"), ("assistant", "yes")]


@pytest.mark.parametrize(
    "prompt",
    [
        "Human: beings or animals?",
        "Translate:\n\nHuman: hi\n\nAssistant: hello",
        "User: hi\nAI: hello\nUser: Which slots are filled?",
        "Summarise.\n\nUser: hi\n\nAssistant:",
    ],
)
def test_a_prompt_that_only_holds_such_words_stays_a_text(prompt):
    assert read([{"prompt": prompt, "completion": "x"}]) == [[("user", prompt), ("assistant", "x")]]


PLAYS = [
    "Sure:\n\nUser: hi\n\nAI: hello\n\nBot: me, too",
    "Sure:\nHuman: hi\nAssistant: hello",
    "human: in lower case\n\nassistant: as well",
    "Note: this\n\nSystem: of words\n\nModel: 7",
]


@pytest.mark.parametrize("play", PLAYS)
def test_what_an_answer_or_a_question_quotes_begins_no_turn(play):
    text = f"\n\nHuman: a play\n\nAssistant: {play}\n\nHuman: mine is {play}\n\nAssistant: good"
    turns = [("user", "a play"), ("assistant", play), ("user", f"mine is {play}"), ("assistant", "good")]
    assert read([{"chosen": text}]) == [turns]
    assert read([{"messages": text}]) == [turns]
    asked = "Go on.\n\nUser: hi\n\nAI: hello"
    assert read([{"chosen": f"Human: {asked}\n\nAssistant: ok"}]) == [[("user", asked), ("assistant", "ok")]]


def test_a_system_text_and_a_greeting_may_begin_a_transcript():
    text = "System: Be kind.\n\nUser: hi\n\nAssistant: hello"
    assert read([{"messages": text}]) == [[("system", "Be kind."), ("user", "hi"), ("assistant", "hello")]]
    assert read([{"messages": "Assistant: Welcome!\n\nHuman: hi\n\nAssistant: hello"}]) == [
        [("user", "hi"), ("assistant", "hello")]
    ]


VICUNAS = "A chat between a curious user and an artificial intelligence assistant. It gives helpful answers."
ALPACAS = "Below is an instruction that describes a task"


@pytest.mark.parametrize("column", ["text", "conversation", "messages"])
@pytest.mark.parametrize(
    ("text", "system", "asked"),
    [
        (f"{VICUNAS} USER: hi{{n}} ASSISTANT: hello</s>USER: and? ASSISTANT: yes</s>", VICUNAS, "hi{n}"),
        (f"{VICUNAS}\n\nUSER: hi{{n}}\nASSISTANT: hello\nUSER: and?\nASSISTANT: yes", VICUNAS, "hi{n}"),
        (f"{VICUNAS}\n### Human: hi{{n}}\n### Assistant: hello\n### Human: and?\n### Assistant: yes", VICUNAS, "hi{n}"),
        ("USER: hi{n} ASSISTANT: hello</s>USER: and? ASSISTANT: yes</s>", "", "hi{n}"),
        (
            f"{ALPACAS}.\n\n### Instruction:\nhi{{n}}\n\n### Response:\nhello\n\n### Instruction:\nand?\n\n"
            "### Response:\nyes",
            f"{ALPACAS}.",
            "hi{n}",
        ),
        (
            "### Instruction:\nhi{n}\n\n### Input:\nX\n\n### Response:\nhello\n\n### Instruction:\nand?\n\n"
            "### Response:\nyes",
            "",
            "hi{n}\n\nX",
        ),
    ],
)
def test_what_stands_before_the_first_label_of_a_conversation_is_its_system_text(column, text, system, asked):
    said = [("user", asked), ("assistant", "hello"), ("user", "and?"), ("assistant", "yes")]
    turns = [("system", system), *said] if system else said
    assert read(numbered({column: text})) == [[tuple(turn) for turn in one] for one in numbered(turns)]


def test_alpacas_prompts_with_an_input_and_without_stand_in_one_file():
    plain = f"{ALPACAS}. Write.\n\n### Instruction:\nhi{{n}}\n\n### Response:\nhello"
    paired = f"{ALPACAS}, paired with an input.\n\n### Instruction:\nhi{{n}}\n\n### Input:\nX\n\n### Response:\nhello"
    turns = read([{"text": text.replace("{n}", str(n))} for n in range(3) for text in (plain, paired)])
    assert turns[0] == [("system", f"{ALPACAS}. Write."), ("user", "hi0"), ("assistant", "hello")]
    assert turns[1] == [("system", f"{ALPACAS}, paired with an input."), ("user", "hi0\n\nX"), ("assistant", "hello")]


def test_documents_that_only_hold_labels_stay_plain_text():
    for text in ("The manual, part {n}.\n\nUSER: who uses it", "Part {n} of a play\nHuman: hi\nRobot: hello"):
        with pytest.raises(UserError, match="plain text"):
            read(numbered({"text": text}))


def test_a_transcript_with_calls_and_results_of_tools_is_read():
    row = {
        "system": "SYSTEM: You have functions.",
        "chat": 'USER: 1 USD{n}?\n\n\nASSISTANT: Let me see. <functioncall> {"name": "rate", "arguments": \'{"to": '
        '"EUR"}\'} <|endoftext|>\n\n\nFUNCTION RESPONSE: {"rate": 2}\n\n\nASSISTANT: 2 EUR. <|endoftext|>',
    }
    (first, *_rest) = read_examples(DataSpec(rows=numbered(row)))
    assert [(m.role, m.content, m.is_answer) for m in first.messages] == [
        ("system", "You have functions.", False),
        ("user", "1 USD0?", False),
        ("assistant", "Let me see.", False),
        ("tool", '{"rate": 2}', False),
        ("assistant", "2 EUR.", True),
    ]
    (call,) = json.loads(first.messages[2].extra)["tool_calls"]
    assert call["function"] == {"name": "rate", "arguments": {"to": "EUR"}}


CALL = {"id": "c1", "type": "function", "function": {"name": "rate", "arguments": '{"to": "EUR"}'}}
CALLS = {
    "OpenAI's": {"role": "assistant", "content": None, "tool_calls": [CALL]},
    "as text": {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])},
    "one, no list": {"role": "assistant", "tool_calls": CALL},
    "a function as text": {"role": "assistant", "tool_calls": [{"function": json.dumps(CALL["function"])}]},
    "a function's name": {"role": "assistant", "tool_calls": [{"function": "rate", "arguments": {"to": "EUR"}}]},
    "each as text": {"role": "assistant", "tool_calls": [json.dumps(CALL)]},
    "the old way": {"role": "assistant", "content": None, "function_call": CALL["function"]},
    "the old way, as text": {"role": "assistant", "content": None, "function_call": json.dumps(CALL["function"])},
    "a turn of its own": {"from": "function_call", "value": json.dumps(CALL["function"])},
    "Hermes'": {"from": "gpt", "value": f"<tool_call>\n{json.dumps(CALL['function'])}\n</tool_call>"},
    "Glaive's": {"from": "gpt", "value": f"<functioncall> {json.dumps(CALL['function'])}"},
}
RESULTS = {
    "OpenAI's": {"role": "tool", "tool_call_id": "c1", "content": "2"},
    "ShareGPT's": {"from": "observation", "value": "2"},
    "Hermes'": {"from": "tool", "value": "<tool_response>\n2\n</tool_response>"},
}
WITH_TOOLS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '') }}"
    "{% for c in m['tool_calls'] or [] %}<call>{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}"
    "</call>{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def with_call(call, result=RESULTS["OpenAI's"]):
    turns = [{"role": "user", "content": "1 USD?"}, call, result, {"role": "assistant", "content": "2 EUR."}]
    return {"messages": turns}


def scored(row, made):
    return made.decode([i for i, learned in zip(row.input_ids, row.scored, strict=True) if learned])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_calls_of_tools_are_context_in_every_form_without_their_definitions_too(call, result):
    made = tokenizer(WITH_TOOLS)
    ((row,), _notes) = encode_all(read_examples(DataSpec(rows=[with_call(call, result)])), made, 4096)
    text = made.decode(row.input_ids)
    assert '<call>rate {"to": "EUR"}</call>' in text
    assert "<|im_start|>tool\n2<|im_end|>" in text
    assert scored(row, made) == "2 EUR.<|im_end|>"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_where_the_template_knows_no_tools_the_row_is_refused_by_name(call):
    examples = read_examples(DataSpec(rows=[with_call(call)]))
    with pytest.raises(UserError, match="Row 1: the chat template knows no tools"):
        encode_all(examples, byte_tokenizer(), 4096)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_rows_that_end_with_calls_are_left_out_and_why_is_said(call):
    rows = [{"messages": with_call(call)["messages"][:2]}, *numbered({"messages": "Human: q{n}\n\nAssistant: a{n}"})]
    assert "1 row without an answer but calls of tools" in notes_of(rows)
    with pytest.raises(UserError, match=r"calls of tools.* all 1 rows. Give conversations that go on") as caught:
        read_examples(DataSpec(rows=rows[:1]))
    assert "empty" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "learned"),
    [
        ("<tool_call>no JSON</tool_call>", False),
        ("<functioncall> {}", False),
        ("Write <tool_call>…</tool_call> around it.", True),
    ],
)
def test_a_call_that_can_t_be_read_is_no_answer_and_a_text_on_calls_is_one(words, learned):
    (example,) = read_examples(DataSpec(rows=[with_call({"role": "assistant", "content": words})]))
    assert (example.messages[1].content, example.messages[1].is_answer) == (words, learned)


def test_calls_that_are_no_list_of_calls_are_named():
    with pytest.raises(UserError, match="row 1: 'messages' holds calls of tools that are not valid JSON"):
        read([with_call({"role": "assistant", "tool_calls": "get it"})])


@pytest.mark.parametrize("empty", [None, "", "[]", "null", []])
def test_no_calls_are_no_calls(empty):
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x", "tool_calls": empty}]}
    assert read([row]) == [[("user", "hi"), ("assistant", "x")]]


def test_of_two_dialects_in_a_turn_the_one_that_is_filled_is_read():
    nothing = {"role": None, "content": None}
    turns = [{"from": "human", "value": "hi", **nothing}, {**nothing, "from": "gpt", "value": "hello", "text": ""}]
    assert read([{"messages": turns}]) == [[("user", "hi"), ("assistant", "hello")]]
    filled = [
        {"role": "user", "content": 7, "from": ""},
        {"role": "assistant", "content": "7", "from": "", "value": None},
    ]
    assert read([{"messages": filled}]) == [[("user", "7"), ("assistant", "7")]]


def test_turns_that_python_has_written_into_a_cell_are_read():
    turns = [{"role": "user", "content": "what's {n}?"}, {"role": "assistant", "content": 'a "word"'}]
    assert read(numbered({"messages": str(turns)}))[0] == [("user", "what's 0?"), ("assistant", 'a "word"')]
    twice = '[{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "c"}]'
    with pytest.raises(UserError):
        read([{"messages": twice}])


def test_a_system_text_in_parts_is_its_words():
    turns = [{"role": "user", "content": "hi{n}"}, {"role": "Chatbot", "content": "hello"}]
    row = {"system": [{"text": "Be kind."}], "messages": turns}
    assert read(numbered(row))[0] == [("system", "Be kind."), ("user", "hi0"), ("assistant", "hello")]
