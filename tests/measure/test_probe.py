"""General ability: our scorer against a plain one, files in HellaSwag's columns, and both sides compared."""

from __future__ import annotations

import json

import numpy
import pytest
import torch

from benchmarks.probe import plain_answer
from tests.helpers import byte_tokenizer
from tunelab import LoRA, ModelSpec, PromptTuning, UserError, load
from tunelab.data import encode_all
from tunelab.fast import choose_loss
from tunelab.losses import PlainLoss
from tunelab.measure.probe.ability import compare_abilities, measure_ability
from tunelab.measure.probe.choices import Answered, Scores, encode_question, score_choices
from tunelab.measure.probe.read import Probe, Question, instructions, read_probe
from tunelab.measure.scoring import row_losses
from tunelab.measure.statistics import bootstrap_ratio

SHORT = Probe("short", (Question("The sky is", ("blue.", "made of oak.", "été."), 0, "colours"),))


def assert_like_plain(probe, loss, base):
    scores = score_choices(probe, loss, base)
    plain = [plain_answer(question, base.model, base.tokenizer) for question in probe.questions]
    for ours, expected in zip(scores.answers, plain, strict=True):
        assert ours.log_likelihoods == pytest.approx(expected.log_likelihoods, rel=1e-4)
        assert (ours.lengths, ours.right, ours.chosen) == (expected.lengths, expected.right, expected.chosen)
    assert 0 < sum(scores.right) < len(plain)


# ---- scoring


@pytest.mark.parametrize("fast", [True, False])
def test_our_scorer_equals_a_plain_one_on_forty_questions(tiny, fast):
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    loss = choose_loss(base.model, LoRA()) if fast else PlainLoss(base.model)
    assert loss.fast == fast
    assert_like_plain(read_probe().first(40), loss, base)


def test_our_scorer_equals_a_plain_one_on_the_embedded_model(starter):
    base = load(ModelSpec(repo_id=starter, dtype="float32"))
    probe = read_probe().first(12)
    assert_like_plain(probe, choose_loss(base.model, LoRA()), base)
    assert score_choices(probe, PlainLoss(base.model), base).accuracy > 30  # chance is 25


def test_every_token_after_the_context_is_scored_and_none_before_it():
    tokenizer = byte_tokenizer()
    for row, ending in zip(encode_question(SHORT.questions[0], tokenizer), SHORT.questions[0].choices, strict=True):
        ids = numpy.array(row.input_ids)
        assert tokenizer.decode(ids[row.scored]) == f" {ending}"
        assert tokenizer.decode(ids[~numpy.array(row.scored)]) == "The sky is"


def test_white_space_around_context_and_ending_changes_nothing():
    tokenizer = byte_tokenizer()
    untidy = Question("\n The sky is \n", (" blue.", "made of oak. ", "été."), 0)
    assert encode_question(untidy, tokenizer) == encode_question(SHORT.questions[0], tokenizer)


def test_our_scorer_equals_a_plain_one_on_hellaswag_as_it_lies_on_the_disk(tiny, shared_data):
    probe = read_probe(shared_data / "probe_hellaswag" / "val_500.jsonl")
    untidy = [q for q in probe.questions if any(choice != choice.strip() for choice in q.choices)]
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    assert_like_plain(Probe("mixed", (*untidy[:8], *probe.questions[:8])), choose_loss(base.model, LoRA()), base)


def test_a_row_begins_as_the_tokenizer_begins_texts_and_does_not_end_as_it_ends_them():
    from tokenizers import processors

    tokenizer = byte_tokenizer()
    specials = [("<|im_start|>", 1), ("<|im_end|>", 2)]
    ends = processors.TemplateProcessing(single="<|im_start|> $A <|im_end|>", special_tokens=specials)
    tokenizer.backend_tokenizer.post_processor = ends
    row = encode_question(SHORT.questions[0], tokenizer)[0]
    assert row.input_ids == tokenizer("The sky is blue.").input_ids[:-1]
    assert row.input_ids[0] == 1
    assert sum(row.scored) == len(" blue.")


def test_where_an_ending_joins_the_context_in_a_token_all_endings_are_scored_from_there():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["<e>", *letters, "Ġb", "sĠb"])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "b"), ("s", "Ġb")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<e>")
    rows = encode_question(SHORT.questions[0], tokenizer)
    scored = [tokenizer.decode(numpy.array(row.input_ids)[row.scored]) for row in rows]
    assert scored == ["s blue.", "s made of oak.", "s été."]


def test_a_question_that_is_too_long_loses_the_beginning_of_its_text_for_all_endings_alike(tiny):
    tokenizer = byte_tokenizer()
    rows = encode_question(SHORT.questions[0], tokenizer, limit=18)
    assert [tokenizer.decode(row.input_ids) for row in rows] == ["ky is blue.", "ky is made of oak.", "ky is été."]
    assert [sum(row.scored) for row in rows] == [len(f" {ending}".encode()) for ending in SHORT.questions[0].choices]
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    scores = score_choices(SHORT, PlainLoss(base.model), base, max_length=18)
    assert scores.notes == (
        "1 questions of short are longer than the model's rows and lost the beginning of their text",
    )


def test_an_ending_that_does_not_fit_into_a_row_is_an_error_that_names_it():
    with pytest.raises(UserError, match=r"question.*'made of oak\.'.*12 tokens"):
        encode_question(SHORT.questions[0], byte_tokenizer(), limit=12)


def test_control_tokens_in_a_question_are_ordinary_text_and_a_note_says_so(tiny):
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    probe = Probe("odd", (Question("He wrote <|im_end|> and", ("left.", "stayed."), 0),))
    (row, _other) = encode_question(probe.questions[0], base.tokenizer)
    assert not {0, 1, 2} & set(row.input_ids)
    assert "control tokens" in score_choices(probe, PlainLoss(base.model), base).notes[0]


def test_the_ending_with_the_highest_log_p_per_byte_is_chosen():
    answer = Answered(log_likelihoods=(-10.0, -12.0, -30.0), lengths=(5, 10, 12), right=1)
    assert (answer.chosen, answer.is_right) == (1, True)
    assert Answered((-2.0, -2.0), (4, 4), 1).chosen == 0


def test_lengths_are_bytes_of_the_ending_without_the_space(tiny):
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    assert score_choices(SHORT, PlainLoss(base.model), base).answers[0].lengths == (5, 12, 6)


# ---- reading


def test_the_built_in_probe_and_an_even_part_of_it():
    probe = read_probe()
    assert (len(probe.questions), probe.notes) == (160, ())
    part = probe.first(8)
    categories = [question.category for question in part.questions]
    assert [categories.count(name) for name in dict.fromkeys(categories)] == [2, 2, 2, 2]
    assert part.notes == ("8 of 160 questions of the built-in probe are used",)
    with pytest.raises(UserError, match="questions = 0"):
        probe.first(0)


def test_hellaswag_is_read_as_it_lies_on_the_disk(shared_data):
    path = shared_data / "probe_hellaswag" / "val_500.jsonl"
    probe = read_probe(path)
    assert (len(probe.questions), probe.notes) == (500, ())
    row = json.loads(path.read_text(encoding="utf-8").splitlines()[2])
    question = probe.questions[2]
    assert (question.context, list(question.choices), question.right) == (row["ctx"], row["endings"], row["label"])


GOOD = {"ctx": "Grass is", "endings": ["green.", "loud."], "label": 0}


def test_labels_and_endings_may_be_text_as_tables_and_the_hub_write_them(tmp_path):
    path = tmp_path / "probe.csv"
    path.write_text('ctx,endings,label\nGrass is,"[""green."", ""loud.""]",0\nSnow is,"[""hot."", ""cold.""]",1\n')
    assert [question.right for question in read_probe(path).questions] == [0, 1]
    assert read_probe([GOOD | {"label": "1"}]).questions[0].right == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, "label = 2: it has to be a whole number from 0 to 1"),
        ({"label": -1}, "label = -1"),
        ({"label": True}, "label = True"),
        ({"label": ""}, "label = ''"),
        ({"label": None}, "label = None"),
        ({"ctx": " "}, "ctx = ' '"),
        ({"ctx": 5}, "ctx = 5"),
        ({"endings": ["green."]}, "endings ="),
        ({"endings": "green."}, "endings = 'green.'"),
        ({"endings": ["green.", ""]}, "none of them empty"),
        ({"endings": ["green.", 5]}, "endings ="),
        ({"endings": ["green.", "green."]}, "'green.' stands among the wrong ones"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_value_and_what_is_allowed(change, message):
    with pytest.raises(UserError) as raised:
        read_probe([GOOD | change])
    assert "row 1" in str(raised.value)
    assert message in str(raised.value)
    probe = read_probe([GOOD, GOOD | {"ctx": "Leaves are"}, GOOD | change])
    assert len(probe.questions) == 2
    assert "row 3" in probe.notes[0]
    assert message in probe.notes[0]


def test_a_file_of_another_kind_is_told_which_columns_a_probe_needs(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    with pytest.raises(UserError, match=r"no 'ctx' among its columns \(prompt, completion\).*'endings'.*'label'"):
        read_probe(path)
    with pytest.raises(UserError, match="is empty"):
        read_probe([])


def test_questions_that_stand_twice_are_told():
    assert read_probe([GOOD, GOOD]).notes == (
        "1 of the questions of the rows given stand in it twice, and count twice",
    )


# ---- both sides


def tuned(technique, tiny):
    """A base, and a loss of it with an adapter that changes it."""
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    model = technique.attach(base).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return base, choose_loss(model, technique)


@pytest.mark.parametrize(
    "technique",
    [LoRA(r=4), PromptTuning(num_virtual_tokens=4, init_text="Answer well.")],
    ids=lambda technique: type(technique).__name__,
)
def test_the_side_before_is_the_bare_base(tiny, technique):
    bare = load(ModelSpec(repo_id=tiny, dtype="float32"))
    probe = read_probe().first(24)
    expected = score_choices(probe, PlainLoss(bare.model), bare)
    base, loss = tuned(technique, tiny)
    ability = measure_ability(probe, loss, base, technique.off, with_instructions=False)
    assert ability.right_before == expected.right
    assert ability.chosen_before == [answer.chosen for answer in expected.answers]
    assert ability.chosen_after != ability.chosen_before
    assert ability.instruction_loss is None
    assert "24 of 160 questions of the built-in probe are used" in ability.notes


def test_the_change_of_loss_on_instructions_is_what_evaluation_computes_of_them(tiny):
    base, loss = tuned(LoRA(r=4), tiny)
    ability = measure_ability(read_probe().first(4), loss, base, LoRA().off, max_length=256)
    rows = encode_all(instructions(), base.tokenizer, 256)[0]
    after = row_losses(loss, rows, base)
    with LoRA().off(loss.model):
        before = row_losses(loss, rows, base)
    expected = bootstrap_ratio([a - b for (a, _), (b, _) in zip(after, before, strict=True)], [n for _, n in before])
    assert ability.instruction_loss is not None
    found = ability.instruction_loss.change
    assert found.n == expected.n == len(rows) > 50
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=1e-3
    )
    assert ability.instruction_loss.base == pytest.approx(sum(b for b, _ in before) / sum(n for _, n in before))


def answers(*rights: int) -> Scores:
    return Scores(tuple(Answered((-1.0, -2.0), (1, 1), 1 - right) for right in rights))


def test_figures_of_both_sides_follow_from_right_and_wrong_of_each_question():
    categories = ("a", "a", "b", "b", "b")
    probe = Probe("p", tuple(Question("x", ("y", "z"), 0, category) for category in categories), ("a note",))
    ability = compare_abilities(probe, answers(1, 1, 0, 1, 0), answers(1, 0, 1, 0, 0))
    assert (ability.before, ability.after, ability.questions) == (60.0, 40.0, 5)
    assert ability.lost_and_gained == (2, 1)
    assert ability.p == pytest.approx(1.0)  # of 3 questions, 2 or more to either side
    before, after = ability.arrays()
    assert (before - after).tolist() == [0, 1, -1, 1, 0]
    assert {name: (c.questions, c.before, c.after) for name, c in ability.categories.items()} == {
        "a": (2, 100.0, 50.0),
        "b": (3, pytest.approx(100 / 3), pytest.approx(100 / 3)),
    }
    assert ability.notes == ("a note",)
    assert type(ability).model_validate_json(ability.model_dump_json()) == ability


def test_questions_without_categories_have_no_figures_by_category():
    ability = compare_abilities(SHORT, answers(1), answers(0))
    assert set(ability.categories) == {"colours"}
    bare = Probe("p", (Question("x", ("y", "z"), 0),))
    assert compare_abilities(bare, answers(1), answers(0)).categories == {}
