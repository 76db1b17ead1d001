"""What ends an answer, what a control token is, and that training sees what inference will see, for templates of every
kind. Held against transformers' own rendering and tokenising."""

from __future__ import annotations

import gc
import json
import weakref

import pytest

from tests.data.templates import CHATML, FALCON, KINDS, QWEN3, tokenizer
from tests.helpers import VOCABULARY, tiny_llama
from tunelab import DataSpec, ModelSpec, Stage, UserError, preview
from tunelab.answer.generation import text_of
from tunelab.data import Example, Message, chat_format, encode, encode_all, encode_prompt, neutralise, prompt_notes
from tunelab.data.batches import collate
from tunelab.data.control import ControlTokens
from tunelab.data.encode import Encoded
from tunelab.model.load import load_tokenizer

SYSTEM = Message("system", "Be brief.")
TURNS = (
    Message("user", "Hi"),
    Message("assistant", "Hello,\n\nyou!"),
    Message("user", "<b>1 + 1</b>?"),
    Message("assistant", "<b>2</b> "),
    Message("user", "i"),
    Message("assistant", "<think>\nWell.\n</think>\n\nBye"),
)
# the kind of template → what stands behind an answer, as text; the end-of-text token where it writes none
ENDS = {
    "chatml": "<|im_end|>",
    "chatml, the end is no special token": "<|im_end|>",
    "chatml, no tokens of it": "<|im_end|><|endoftext|>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "phi3": "<|end|>",
    "cohere": "<|end_response|><|end_turn|>",
    "open": "\n<|end|>",
    "falcon": "<|endoftext|>",
    "beginnings": "<|endoftext|>",
    "roles": "<|endoftext|>",
    "hashes": "\n### stop<|endoftext|>",
    "qwen3": "<|im_end|>",
    "r1": "<eos>",
    "no thoughts": "<|im_end|>",
    "channel": "<|return|>",
    "moving": "</s>",
    "none": "<|endoftext|>",
    "none, bos": "</s>",
}
PUT_BEHIND = ("chatml, no tokens of it", "falcon", "beginnings", "roles", "hashes")  # no token behind an answer
ANEW = ("qwen3", "r1", "no thoughts", "channel")  # earlier answers are written in another way


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def rendered(made, turns, **options):
    turns = [{"role": turn.role, "content": turn.content} for turn in turns]
    return made.apply_chat_template(turns, return_dict=False, **options)


def answers_of(rows):
    """Of every scored stretch: the tokens before it, and its own."""
    for row in rows:
        for start in range(1, len(row.scored)):
            if row.scored[start] and not row.scored[start - 1]:
                stop = next((i for i in range(start, len(row.scored)) if not row.scored[i]), len(row.scored))
                yield row.input_ids[:start], row.input_ids[start:stop]


def test_every_answer_ends_as_the_template_ends_it_and_the_last_token_stops_it(kind):
    made = KINDS[kind]()
    row = encode(Example(TURNS[:2]), made, 1000)
    assert made.decode(row.input_ids).endswith(f"Hello,\n\nyou!{ENDS[kind]}")
    ((_before, answer),) = answers_of([row])
    assert made.decode(answer).endswith(f"you!{ENDS[kind]}")
    assert answer[-1] == chat_format(made).end_ids[0]
    assert chat_format(made).end_ids[0] not in answer[:-1]
    assert made.eos_token_id in chat_format(made).end_ids


def test_what_is_shown_of_an_answer_is_its_words(kind):
    made = KINDS[kind]()
    ((_before, answer),) = answers_of([encode(Example(TURNS[:2]), made, 1000)])
    shown = text_of(made, answer[:-1])  # decoding leaves the token out that ends
    assert chat_format(made).words(shown).strip() == "Hello,\n\nyou!"


@pytest.mark.parametrize("length", [2, 4, 6])
@pytest.mark.parametrize("system", [False, True])
def test_every_answer_is_learned_once_behind_exactly_the_prompt_that_asks_for_it(kind, length, system):
    made = KINDS[kind]()
    turns = (SYSTEM, *TURNS[:length]) if system else TURNS[:length]
    rows, notes = encode_all([Example(turns, row=1)], made, 1000)
    learned = list(answers_of(rows))
    asked = [turns[:place] for place, turn in enumerate(turns) if turn.role == "assistant"]
    assert [before for before, _answer in learned] == [encode_prompt(each, made) for each in asked]
    for (_before, answer), turn in zip(learned, (t for t in turns if t.role == "assistant"), strict=True):
        text = made.decode(answer)
        words = turn.content.strip() if kind != "no thoughts" else turn.content.strip().rpartition("\n")[2]
        assert words.removeprefix("<think>\n") in text
        assert text.endswith(ENDS[kind])
    apart = any("each answer became a row of its own" in note for note in notes)
    assert apart == (len(rows) > 1)
    assert (len(rows) == 1) == (length == 2 or kind not in (*PUT_BEHIND, *ANEW, *(["moving"] * system)))


@pytest.mark.parametrize("length", [1, 3, 5])
def test_prompts_are_what_transformers_makes_of_the_template(kind, length):
    made = KINDS[kind]()
    if made.chat_template:
        expected = rendered(made, TURNS[:length], add_generation_prompt=True)
    else:
        pieces = [f"### {'Question' if place % 2 == 0 else 'Answer'}:\n{t.content}" for place, t in enumerate(TURNS)]
        pieces = [piece + made.eos_token * (place % 2) for place, piece in enumerate(pieces[:length])]
        expected = made("\n\n".join([*pieces, "### Answer:\n"])).input_ids
    assert encode_prompt(TURNS[:length], made) == expected


def test_only_templates_that_write_no_token_behind_an_answer_are_told_of(kind):
    made = KINDS[kind]()
    _rows, notes = encode_all([Example(TURNS[:2])], made, 1000)
    told = [note for note in notes if "the end-of-text token" in note]
    assert len(told) == (kind in PUT_BEHIND)
    assert all(made.eos_token in note for note in told)


def test_the_preview_says_that_a_row_ends_by_what_ends_an_answer(tmp_path):
    folder = tiny_llama(tmp_path)
    rows = [{"prompt": f"p{n}", "completion": f"c{n}" * 20} for n in range(4)]
    for kind in ("chatml", "falcon"):
        KINDS[kind]().save_pretrained(folder)
        for length, ends in ((1000, True), (40, False)):
            spec = ModelSpec(repo_id=str(folder), max_length=length)
            shown, notes = preview(Stage(data=DataSpec(rows=rows, heldout=1)), spec)
            assert [row.ends for row in shown] == [ends] * len(shown)
        assert any("puts nothing after an answer" in note for note in notes) == (kind == "falcon")


# control tokens


def test_words_that_a_tokenizer_has_added_stay_as_they_are():
    words = ("<think>", "</think>", "[ASPIRIN]", "    ", "user", "<tool_call>")
    for template in (CHATML, QWEN3, None):
        made = tokenizer(template, words=words)
        text = "<think>user</think> gives [ASPIRIN]:\n    <tool_call>\n        x"
        assert neutralise(text, made) == text
        row = encode(Example((Message("user", "?"), Message("assistant", text))), made, 1000)
        assert text.partition("</think>")[2] in made.decode(row.input_ids)


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        ("chatml", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"]),
        ("chatml, the end is no special token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"]),
        ("chatml, no tokens of it", ["<|im_end|>", "<|im_start|>"]),
        ("mistral", ["<s>", "</s>", "[INST]", "[/INST]"]),
        ("gemma", ["<end_of_turn>", "<start_of_turn>", "<bos>"]),
        ("open", ["<|end|>", "<|user|>", "<|assistant|>"]),
        ("none", ["<|endoftext|>"]),
    ],
)
def test_what_ends_or_begins_a_turn_can_not_be_written_in_text(kind, tokens):
    made = KINDS[kind]()
    text = "".join(f"a{token}b" for token in tokens)
    assert neutralise(text, made) == "".join(f"a{token[0]} {token[1:]}b" for token in tokens)
    turns = (Message("user", text), Message("assistant", text))
    harmless = (Message("user", "x"), Message("assistant", "x"))
    for token in tokens:
        count = made.decode(encode(Example(turns), made, 1000).input_ids).count(token)
        assert count == made.decode(encode(Example(harmless), made, 1000).input_ids).count(token)


def test_rows_that_held_control_tokens_are_counted_and_one_is_named():
    made = tokenizer()
    texts = ["fine", "a<|im_end|>b", "c<|im_start|>", "also fine"]
    rows = [Example((Message("user", text), Message("assistant", "y"))) for text in texts]
    assert encode_all(rows, made, 100)[1] == ["2 rows held control tokens such as <|im_end|>; a space breaks them"]
    assert encode_all([Example(text=text) for text in texts[:2]], made, 100)[1] == [
        "1 row held control tokens such as <|im_end|>; a space breaks them"
    ]
    assert prompt_notes([Message("user", texts[2])], made) == [
        "The prompt held control tokens such as <|im_start|>; a space breaks them."
    ]
    assert prompt_notes([Message("user", texts[0])], made) == []


def test_a_tokenizer_without_a_fast_one_is_understood_as_well():
    from transformers import ByT5Tokenizer

    made = ByT5Tokenizer(chat_template=CHATML)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.add_tokens(["<think>"])
    assert neutralise("<think>a</s>b<|im_end|>", made) == "<think>a< /s>b< |im_end|>"
    row = encode(Example(TURNS[:2]), made, 1000)
    assert row.input_ids == rendered(made, TURNS[:2])[: len(row.input_ids)]
    assert row.input_ids[-1] == made.convert_tokens_to_ids("<|im_end|>")
    # what it appends to a text is no part of a prompt
    assert encode_prompt(TURNS[:1], made) == rendered(made, TURNS[:1], add_generation_prompt=True)
    made.chat_template = None
    assert made.eos_token_id not in encode_prompt(TURNS[:1], made)


# <bos>


def test_plain_text_and_plain_prompts_begin_as_the_tokenizer_begins_a_text():
    made = KINDS["none, bos"]()
    row = encode(Example(text="Once upon a time."), made, 100)
    assert row.input_ids == [*made("Once upon a time.").input_ids, made.eos_token_id]
    assert row.scored == [False] + [True] * (len(row.input_ids) - 1)
    prompt = encode_prompt(TURNS[:1], made)
    assert prompt == made("### Question:\nHi\n\n### Answer:\n").input_ids
    row = encode(Example(TURNS), made, 1000)
    assert row.input_ids[: len(prompt)] == prompt
    assert row.input_ids.count(made.bos_token_id) == 1


@pytest.mark.parametrize("kind", ["llama3", "mistral"])
def test_a_template_that_writes_bos_has_it_once_and_text_has_it_as_well(kind):
    made = KINDS[kind]()
    row = encode(Example(TURNS), made, 1000)
    assert row.input_ids.count(made.bos_token_id) == 1
    assert encode(Example(text="x"), made, 100).input_ids[:2] == made("x").input_ids


# templates that raise


def test_without_a_system_role_the_system_text_opens_the_first_turn_of_the_user():
    by_hand = (Message("user", "Be brief.\n\nHi"), *TURNS[1:])
    for kind in ("gemma", "mistral"):
        made = KINDS[kind]()
        assert encode_prompt((SYSTEM, *TURNS[:3]), made) == rendered(made, by_hand[:3], add_generation_prompt=True)
        (row,), notes = encode_all([Example((SYSTEM, *TURNS))], made, 1000)
        assert row == encode(Example(by_hand), made, 1000)
        assert notes == [
            "1 row: the system text stands in the user's first turn, because the chat template has no system role"
        ]


def test_a_system_text_between_question_and_answer_ends_the_question():
    made = KINDS["gemma"]()
    ids = encode_prompt((*TURNS[:3], SYSTEM), made)
    by_hand = (*TURNS[:2], Message("user", f"{TURNS[2].content}\n\nBe brief."))
    assert ids == rendered(made, by_hand, add_generation_prompt=True)
    with pytest.raises(UserError, match="no system role"):
        encode_prompt((*TURNS[:2], SYSTEM), made)


def test_a_template_that_drops_the_system_text_without_a_word_has_no_system_role():
    silent = "{% for m in messages if m.role != 'system' %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    prompt = encode_prompt((SYSTEM, TURNS[0]), made := tokenizer(silent))
    assert made.decode(prompt) == "Be brief.\n\nHi<|im_end|>"


def test_turns_of_the_user_that_follow_each_other_are_one_where_roles_alternate():
    turns = (TURNS[0], Message("user", "Are you there?"), TURNS[1])
    joined = (Message("user", "Hi\n\nAre you there?"), TURNS[1])
    for kind in ("gemma", "mistral"):
        made = KINDS[kind]()
        rows, notes = encode_all([Example(turns)], made, 1000)
        assert rows == [encode(Example(joined), made, 1000)]
        assert any("joined" in note for note in notes)
    made = tokenizer()
    assert made.decode(encode(Example(turns), made, 1000).input_ids).count("<|im_start|>user") == 2


@pytest.mark.parametrize(
    "turns",
    [
        (TURNS[0], TURNS[1], TURNS[3]),
        (TURNS[1], TURNS[0], TURNS[3]),
        (TURNS[0], SYSTEM, TURNS[1], TURNS[3]),
    ],
)
@pytest.mark.parametrize("kind", ["gemma", "mistral"])
def test_what_can_not_be_rendered_is_refused_by_row_and_reason(kind, turns):
    rows = [Example(TURNS[:2], row=1), Example(turns, row=7)]
    with pytest.raises(UserError) as error:
        encode_all(rows, KINDS[kind](), 1000)
    message = str(error.value)
    assert message.startswith("Row 7: the chat template says: ")
    assert "must alternate" in message
    assert f"turns are: {', '.join(turn.role for turn in turns)}" in message
    assert len(message) <= 400


def test_a_template_that_wants_no_text_is_refused_with_the_reason():
    made = tokenizer("{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}")
    for refuse in (lambda: encode(Example(TURNS, row=2), made, 100), lambda: encode_prompt(TURNS[:1], made)):
        with pytest.raises(UserError, match="leaves out the turn of the user"):
            refuse()


def test_a_syntax_error_in_a_template_is_one_sentence():
    with pytest.raises(UserError, match=r"^Row 3: the chat template says: .{10,}") as error:
        encode(Example(TURNS, row=3), tokenizer("{% for m in messages %}{{ m.content "), 100)
    assert len(str(error.value)) <= 400


def test_an_answer_that_nobody_asked_for_is_read_and_not_learned():
    made = tokenizer()
    rows, notes = encode_all([Example((TURNS[1], *TURNS[:2]))], made, 1000)
    ((before, _answer),) = answers_of(rows)
    assert made.decode(before).startswith("<|im_start|>assistant\nHello")
    assert any("nobody asked for" in note for note in notes)


# thoughts


def test_an_answer_to_a_prompt_that_opens_thoughts_closes_them_or_begins_with_its_own():
    made = KINDS["r1"]()
    prompt = made.decode(encode_prompt(TURNS[:1], made))
    assert prompt.endswith("<think>\n")
    row = made.decode(encode(Example(TURNS[:2]), made, 1000).input_ids)
    assert row == prompt + "\n</think>\n\nHello,\n\nyou!<eos>"
    thinking = (TURNS[0], TURNS[5])
    row = made.decode(encode(Example(thinking), made, 1000).input_ids)
    assert row == prompt + "Well.\n</think>\n\nBye<eos>"
    _rows, notes = encode_all([Example(TURNS[:2]), Example(thinking)], made, 1000)
    assert notes == ["1 row: the prompt opens thoughts, and answers that have none close them first"]


def test_what_a_template_leaves_out_of_an_answer_is_told():
    made = tokenizer(CHATML.replace("m.content", "m.content.split('</think>')[-1]"))
    _rows, notes = encode_all([Example(TURNS[:2]), Example((TURNS[0], TURNS[5]))], made, 1000)
    assert notes == [
        "1 row: the chat template leaves out a part of an answer (its thoughts, for one); it is not learned"
    ]


def test_a_turn_that_a_template_leaves_out_is_told():
    made = tokenizer(
        "{% for m in messages %}{{ m.role + m.content | replace('please', '') + '<|im_end|>' }}{% endfor %}"
    )
    polite = (Message("user", "Hi, please say something"), TURNS[1])
    assert encode_all([Example(TURNS[:2]), Example(polite)], made, 1000)[1] == [
        "1 row: the chat template leaves out a turn or a part of one; the model does not read it"
    ]
    assert "leaves out" in prompt_notes(polite[:1], made)[0]


def test_answers_are_measured_without_their_thoughts_where_the_template_knows_of_thoughts():
    text = "<think>\nIs it </think>? No.\n</think>\n\nParis"
    assert chat_format(KINDS["qwen3"]()).words(text).strip() == "Paris"
    assert chat_format(tokenizer()).words(text) == text


# without an end


def test_without_an_end_token_the_template_ends_answers_and_documents():
    made = tokenizer(eos=None)
    assert encode(Example(TURNS[:2]), made, 1000).input_ids[-1] == made.convert_tokens_to_ids("<|im_end|>")
    assert encode(Example(text="x"), made, 1000).input_ids[-1] == made.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("template", [None, FALCON])
def test_where_nothing_can_end_an_answer_it_says_so(template):
    made = tokenizer(template, eos=None)
    for example in (Example(TURNS), Example(text="x")):
        with pytest.raises(UserError, match="no end-of-text token") as error:
            encode_all([example], made, 1000)
        assert len(str(error.value)) <= 400


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("named", [0, [0, 2]])
def test_the_end_that_a_model_s_settings_name_is_the_tokenizer_s_where_that_has_none(tmp_path, file, named):
    folder = tiny_llama(tmp_path)
    tokenizer(FALCON, eos=None).save_pretrained(folder)
    for name in ("generation_config.json", "config.json"):
        settings = json.loads((folder / name).read_text())
        settings["eos_token_id"] = named if name == file else None
        (folder / name).write_text(json.dumps(settings))
    made = load_tokenizer(ModelSpec(repo_id=str(folder)))
    assert made.eos_token == made.pad_token == "<|endoftext|>"
    assert encode(Example(TURNS[:2]), made, 1000).input_ids[-1] == 0


def test_a_default_that_is_an_ordinary_word_ends_nothing(tmp_path):
    folder = tiny_llama(tmp_path)  # its settings name token 2
    tokenizer(FALCON, special="<|endoftext|>", eos=None).save_pretrained(folder)
    assert load_tokenizer(ModelSpec(repo_id=str(folder))).eos_token is None


def test_padding_needs_no_token():
    rows = [Encoded([5, 2, 6], [False, True, True]), Encoded([7, 2], [False, True])]
    assert collate(rows, None).input_ids.tolist() == [[5, 2, 6], [7, 2, 0]]


# one format per tokenizer


def test_a_format_is_made_once_and_anew_when_the_template_changes():
    made = tokenizer()
    first = chat_format(made)
    assert chat_format(made) is first
    made.chat_template = FALCON
    assert chat_format(made).end_ids == (made.eos_token_id,)
    assert chat_format(tokenizer()) is not first


def test_a_format_keeps_no_tokenizer_alive():
    made = tokenizer()
    encode(Example(TURNS), made, 100)
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_the_vocabulary_of_these_tests_fits_the_tiny_model():
    assert max(len(make()) for make in KINDS.values()) <= VOCABULARY


def test_an_answer_without_a_word_is_read_and_not_learned():
    made = KINDS["chatml"]()
    turns = (Message("user", "one"), Message("assistant", ""), Message("user", "two"), Message("assistant", "a"))
    rows, notes = encode_all([Example(turns)], made, 1000)
    ((before, answer),) = answers_of(rows)
    assert "two" in made.decode(before)
    assert made.decode(answer).startswith("a")
    assert any("an answer without a word" in note for note in notes)


def test_a_greeting_before_anybody_asked_is_read_and_not_learned():
    made = KINDS["chatml"]()
    turns = (SYSTEM, Message("assistant", "Welcome."), *TURNS[:2])
    rows, notes = encode_all([Example(turns)], made, 1000)
    ((before, _answer),) = answers_of(rows)
    assert "Welcome." in made.decode(before)
    assert any("nobody asked for" in note for note in notes)


def test_a_token_that_begins_with_a_space_is_broken():
    control = ControlTokens([" <|sep|>", "<|sep|>"])
    broken = control.broken("x <|sep|> y")
    assert control.first_in(broken) is None
    assert broken.replace(" ", "") == "x<|sep|>y"


def test_an_end_does_not_reach_into_the_next_turn():
    """A template that asks for the next answer whether it is asked to or not, without a line end between."""
    made = KINDS["chatml"]()
    made.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant\n"
    )
    row = encode(Example(TURNS[:2]), made, 1000)
    ((_before, answer),) = answers_of([row])
    assert made.decode(answer).endswith("you!<|im_end|>")
