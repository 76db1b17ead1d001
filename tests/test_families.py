"""Families of models: each is trained, stops by itself, answers beside its own base and is exported, or says why not.

Every family learns one constant answer, by LoRA and by a short prefix. What is promised of it afterwards is held
against transformers and PEFT alone, which read the base and the exports from their files.
"""

from __future__ import annotations

import itertools
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import FAMILIES, POSITIONS, QWEN2_MOE, Family
from tests.helpers import WORDS
from tunelab import (
    Comparison,
    DataSpec,
    LoRA,
    ModelSpec,
    PrefixTuning,
    Run,
    RunConfig,
    Stage,
    TrainConfig,
    UserError,
    compare,
    evaluate,
    export_adapter,
    export_gguf,
    export_merged,
    finetune,
    load,
    preview,
)
from tunelab.data import encode_all, read_examples
from tunelab.model.load import load_tokenizer

ANSWER = "yes"
PROMPT = f"say {WORDS[2]}"  # learned with every token above 0.9 by each family, by both techniques
LIMIT = 32  # tokens: far above what the answer takes
LONGEST_MESSAGE = 400  # characters of a refusal
TECHNIQUES = {"lora": LoRA(), "prefix": PrefixTuning(num_virtual_tokens=16)}
LEARNING_RATES = {"lora": 1e-2, "prefix": 0.3}
STEPS = {"lora": 50, "prefix": 120}
ROWS = [{"prompt": f"say {word}", "completion": ANSWER} for word in WORDS]
TRAINED, HELDOUT = ROWS[:12], ROWS[12:]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"say {word}"},
            {"role": "assistant", "content": "no"},
            {"role": "user", "content": f"say {word}, please"},
            {"role": "assistant", "content": ANSWER},
        ]
    }
    for word in WORDS
]
SYSTEM = "Be brief."


def config(folder: Path, technique: str, rows: list[dict[str, str]] = TRAINED, **training: Any) -> RunConfig:
    steps = STEPS[technique]
    settings = {
        "steps": steps, "batch_size": 12, "eval_every": steps, "checkpoint_every": steps, "schedule": "linear",
        "learning_rate": LEARNING_RATES[technique], **training,
    }  # fmt: skip
    return RunConfig(
        model=ModelSpec(repo_id=str(folder), dtype="float32"),
        technique=TECHNIQUES[technique],
        stages=(Stage(data=DataSpec(rows=rows, heldout_rows=HELDOUT), training=TrainConfig(**settings)),),
    )


@dataclass
class Trained:
    """A family's base, and the run that taught it the answer."""

    family: Family
    folder: Path
    run: Run

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def prompt(self) -> list[int]:
        return self.family.prompt_ids(self.tokenizer, PROMPT)

    @cached_property
    def comparison(self) -> Comparison:
        return compare(self.run, PROMPT, max_new_tokens=LIMIT)

    def fresh(self) -> Any:
        """The base as transformers loads it, in fp32."""
        return plain(self.folder)

    def greedy(self, model: Any, **settings: Any) -> list[int]:
        """The tokens that transformers' own generate makes of the prompt, the end included."""
        ids = torch.tensor([self.prompt])
        options = {"max_new_tokens": LIMIT, "do_sample": False, "pad_token_id": self.end_ids[0], **settings}
        with torch.no_grad():
            made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        return made[0, len(self.prompt) :].tolist()

    @cached_property
    def end_ids(self) -> list[int]:
        return self.family.end_ids(self.tokenizer)

    def text_of(self, ids: list[int]) -> str:
        ids = list(itertools.takewhile(lambda token: token not in self.end_ids, ids))
        return self.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")


def plain(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Gives the folder of a family's base, made once."""
    folders: dict[str, Path] = {}

    def folder_of(family: Family) -> Path:
        if family.name not in folders:
            folders[family.name] = family.save(tmp_path_factory.mktemp(family.name))
        return folders[family.name]

    return folder_of


@pytest.fixture(scope="module")
def taught(saved, tmp_path_factory):
    """Gives the run that teaches a family the answer with a technique; each is trained once, and fails once."""
    results: dict[tuple[str, str], Trained | Exception] = {}

    def train(family: Family, technique: str) -> Trained:
        key = family.name, technique
        if key not in results:
            folder = saved(family)
            try:
                run = finetune(config(folder, technique), root=tmp_path_factory.mktemp("runs"))
                results[key] = Trained(family, folder, run)
            except Exception as error:
                results[key] = error
        result = results[key]
        if isinstance(result, Exception):
            raise result
        return result

    return train


@pytest.fixture(scope="module", params=itertools.product(FAMILIES, TECHNIQUES), ids="-".join)
def trained(request, taught) -> Trained:
    family, technique = request.param
    return taught(FAMILIES[family], technique)


@pytest.fixture(scope="module", params=FAMILIES)
def lora(request, taught) -> Trained:
    return taught(FAMILIES[request.param], "lora")


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def refusal(error: pytest.ExceptionInfo[UserError]) -> str:
    """What was said, if it can be read at a glance."""
    message = str(error.value)
    assert len(message) <= LONGEST_MESSAGE
    return message


def words_of(text: str) -> str:
    """An answer without white space around it, and without an empty block of thoughts."""
    return text.strip().removeprefix("<think>\n\n</think>\n\n")


def check_tuned_answer(trained: Trained) -> None:
    answer = trained.comparison.answers[1]
    assert answer.stop_reason == "end of turn", repr(answer.text)
    assert words_of(answer.text) == ANSWER


def check_peft_loads(trained: Trained, folder: Path) -> None:
    from peft import PeftModel

    zipped = export_adapter(trained.run, folder / "adapter.zip").path
    zipfile.ZipFile(zipped).extractall(folder / "adapter")
    model = PeftModel.from_pretrained(trained.fresh(), folder / "adapter").eval()
    answer = trained.text_of(trained.greedy(model, eos_token_id=trained.end_ids))
    assert answer == trained.comparison.answers[1].text
    assert words_of(answer) == ANSWER


def check_merged_stops(trained: Trained, folder: Path) -> None:
    from transformers import AutoTokenizer

    export_merged(trained.run, folder / "merged", dtype="float32")
    made = trained.greedy(plain(folder / "merged"))
    assert made[-1] in trained.end_ids, trained.tokenizer.decode(made)
    assert len(made) < LIMIT
    assert words_of(trained.text_of(made)) == ANSWER
    tokenizer = AutoTokenizer.from_pretrained(folder / "merged")
    assert trained.family.prompt_ids(tokenizer, PROMPT) == trained.prompt


def test_a_learned_answer_is_given_and_ends_by_itself(trained):
    check_tuned_answer(trained)


def test_the_base_column_is_the_greedy_answer_of_transformers_on_the_same_tokens(trained):
    expected = trained.greedy(trained.fresh(), eos_token_id=trained.end_ids)
    answer = trained.comparison.answers[0]
    assert answer.text == trained.text_of(expected)
    assert answer.stop_reason == ("end of turn" if expected[-1] in trained.end_ids else "length")


def test_with_the_adapter_off_the_logits_are_those_of_a_freshly_loaded_base(trained):
    technique, base = trained.run.config.technique, load(trained.run.config.model)
    model = technique.load(base, trained.run.adapter_path).eval()
    ids = torch.tensor([trained.prompt])
    with torch.no_grad():
        expected = trained.fresh()(ids).logits
        with technique.off(model):
            off = model(input_ids=ids).logits
        on = model(input_ids=ids).logits[:, -len(trained.prompt) :]
    assert close(off, expected)
    assert not close(on, expected, tolerance=1e-2)


def test_peft_loads_the_exported_adapter_and_gives_the_same_answer(trained, tmp_path):
    check_peft_loads(trained, tmp_path)


def test_a_merged_export_stops_by_its_own_generation_settings(lora, tmp_path):
    check_merged_stops(lora, tmp_path)


def test_the_learned_answer_counts_as_right_on_rows_held_out(lora):
    report = evaluate(lora.run, rows=4, max_new_tokens=LIMIT, questions=0, instructions=4)
    assert report.metrics["exact_match"].tuned == 100


def read_as(folder: Path, rows: list[dict[str, Any]], **data: Any) -> tuple[str, list[str]]:
    """The first row as the model reads it, and the pieces of it that are learned."""
    stage = Stage(data=DataSpec(rows=rows[:12], heldout_rows=rows[12:], **data))
    (row,), _notes = preview(stage, ModelSpec(repo_id=str(folder)), rows=1)
    return "".join(text for text, _learned in row.segments), [text for text, learned in row.segments if learned]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_base_is_loaded_whichever_attention_is_faster_and_gives_the_same_logits(saved, name, attention):
    folder = saved(FAMILIES[name])
    base = load(ModelSpec(repo_id=str(folder), dtype="float32"), attention=attention)
    ids = torch.tensor([FAMILIES[name].prompt_ids(base.tokenizer, PROMPT)])
    with torch.no_grad():
        assert close(base.model(ids).logits, plain(folder)(ids).logits)


def learned_of_a_conversation(folder: Path) -> list[str]:
    """What is learned of the first conversation, in however many rows it is written."""
    spec = ModelSpec(repo_id=str(folder))
    tokenizer = load_tokenizer(spec)
    rows, _notes = encode_all(read_examples(DataSpec(rows=CHATS))[:1], tokenizer, spec.max_length)
    pieces = []
    for row in rows:
        for learned, group in itertools.groupby(zip(row.input_ids, row.scored, strict=True), key=lambda pair: pair[1]):
            if learned:
                pieces.append(tokenizer.decode([token for token, _scored in group]))
    return pieces


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answer_of_a_conversation_is_learned_with_what_ends_it(saved, name):
    family = FAMILIES[name]
    end = family.end or family.eos
    learned = learned_of_a_conversation(saved(family))
    assert len(learned) == 2
    for piece, answer in zip(learned, ("no", ANSWER), strict=True):
        assert piece.startswith(family.learned.format(answer) + end), piece


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_text_reaches_the_model_whether_the_template_has_that_role_or_not(saved, name):
    text, learned = read_as(saved(FAMILIES[name]), ROWS, system=SYSTEM)
    assert text.count(SYSTEM) == 1
    assert text.index(SYSTEM) < text.index("say ")
    assert not any(SYSTEM in piece for piece in learned)


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_a_run_says_that_the_system_text_went_into_the_first_question(saved, name):
    settings = config(saved(FAMILIES[name]), "lora", steps=1)
    stage = settings.stages[0]
    told = stage.model_copy(update={"data": stage.data.model_copy(update={"system": SYSTEM})})
    notes = finetune(settings.model_copy(update={"stages": (told,)})).progress().started.notes
    assert any("system" in note for note in notes), notes


def test_a_run_says_that_the_end_of_text_was_put_behind_answers_that_nothing_ends(taught):
    notes = taught(FAMILIES["falcon"], "lora").run.progress().started.notes
    assert any("<|endoftext|>" in note for note in notes), notes


def test_a_prefix_can_not_be_merged_and_says_so(taught, tmp_path):
    run = taught(FAMILIES["llama"], "prefix").run
    for export, name in ((export_merged, "merged"), (export_gguf, "model.gguf")):
        with pytest.raises(UserError) as error:
            export(run, tmp_path / name)
        assert "can't be merged" in refusal(error)
        assert not (tmp_path / name).exists()


def test_gguf_is_refused_with_the_reason_and_another_way(lora, tmp_path):
    with pytest.raises(UserError) as error:
        export_gguf(lora.run, tmp_path / "model.gguf")
    reason = "splits text" if lora.family.name == "llama" else "model_type"
    assert reason in refusal(error)
    assert "--to merged" in refusal(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("family", "tokens"), [("gemma2", 64), ("gemma2", 100), ("gemma3", 32), ("gemma3", 64)])
def test_a_prefix_as_long_as_the_attention_window_is_refused(saved, family, tokens):
    settings = config(saved(FAMILIES[family]), "prefix")
    too_long = settings.model_copy(update={"technique": PrefixTuning(num_virtual_tokens=tokens)})
    with pytest.raises(UserError) as error:
        finetune(too_long)
    assert f"num_virtual_tokens = {tokens}" in refusal(error)
    assert "window" in refusal(error)


POSITIONED = [FAMILIES[name] for name in ("gpt2", "opt", "llama")]
positioned = pytest.mark.parametrize("family", POSITIONED, ids=lambda family: family.name)


@positioned
def test_rows_beyond_the_positions_of_the_model_are_cut_and_counted(saved, family):
    long = [row | {"completion": "yes " * POSITIONS} for row in TRAINED]
    run = finetune(config(saved(family), "lora", long, steps=1))
    notes = run.progress().started.notes
    assert any(f"max_length = {POSITIONS}" in note for note in notes), notes


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_virtual_tokens_take_their_positions_from_the_rows(saved, name):
    long = [row | {"completion": "yes " * POSITIONS} for row in TRAINED]
    notes = finetune(config(saved(FAMILIES[name]), "prefix", long, steps=1)).progress().started.notes
    left = POSITIONS - TECHNIQUES["prefix"].num_virtual_tokens
    assert any(str(left) in note for note in notes), notes


@positioned
def test_a_prompt_beyond_the_positions_of_the_model_is_refused_with_its_length(taught, family):
    trained = taught(family, "lora")
    prompt = "x" * (POSITIONS + 50)
    with pytest.raises(UserError) as error:
        compare(trained.run, prompt)
    length = len(family.prompt_ids(trained.tokenizer, prompt))
    assert f"{length} tokens" in refusal(error)
    assert str(POSITIONS) in refusal(error)


@positioned
def test_an_answer_ends_where_the_positions_of_the_model_end(taught, family):
    trained = taught(family, "lora")
    prompt = "x" * (POSITIONS - 120)
    base, _tuned = compare(trained.run, prompt, max_new_tokens=POSITIONS).answers
    assert len(family.prompt_ids(trained.tokenizer, prompt)) + base.tokens <= POSITIONS
    assert base.stop_reason is not None


def test_a_mixture_of_experts_is_trained_and_says_which_narrow_layers_were_left_out(taught):
    trained = taught(QWEN2_MOE, "lora")
    check_tuned_answer(trained)
    assert any("shared_expert_gate" in note for note in trained.run.progress().started.notes)


def test_experts_that_are_no_linear_layers_are_said_to_stay_as_they_are(taught):
    notes = taught(QWEN2_MOE, "lora").run.progress().started.notes
    assert any("experts" in note for note in notes), notes


def test_an_adapter_of_a_mixture_of_experts_is_exported_to_peft_and_merged(taught, tmp_path):
    trained = taught(QWEN2_MOE, "lora")
    check_peft_loads(trained, tmp_path)
    check_merged_stops(trained, tmp_path)
