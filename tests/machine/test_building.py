"""While one thread builds a model, transformers changes the whole process: other threads must not notice."""

from __future__ import annotations

import ast
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from tests.helpers import ROWS
from tunelab import DataSpec, LoRA, ModelSpec, RunConfig, Stage, TrainConfig, compare, finetune, load
from tunelab.fast import weights
from tunelab.machine import libraries
from tunelab.model.load import empty_model
from tunelab.model.quantization import dequantize_nf4, quantize_nf4
from tunelab.run.events import StepDone

REPOSITORY = Path(__file__).parents[2]
# what makes numbers of the default dtype where none is named
FACTORIES = {"empty", "eye", "full", "linspace", "logspace", "normal", "ones", "rand", "randn", "zeros"}
LAYERS = {"Linear", "Embedding", "LayerNorm", "RMSNorm"}


@pytest.fixture
def while_another_builds(monkeypatch):
    """As it is in every thread while transformers builds a model in bfloat16 in one. Who builds one is alone, and finds
    it as usual."""

    @contextmanager
    def alone():
        torch.set_default_dtype(torch.float32)
        yield
        torch.set_default_dtype(torch.bfloat16)

    monkeypatch.setattr(libraries, "building", alone)
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def test_one_model_is_built_at_a_time_and_the_process_is_afterwards_as_it_was(tiny, monkeypatch):
    inside, most, build = [], [], LlamaForCausalLM.__init__

    def slowly(self, config):
        inside.append(config)
        most.append(len(inside))
        time.sleep(0.05)
        build(self, config)
        inside.pop()

    monkeypatch.setattr(LlamaForCausalLM, "__init__", slowly)
    before = torch.get_default_dtype(), PreTrainedModel.tie_weights, torch.linspace
    built = []
    works = [
        lambda: built.append(load(ModelSpec(repo_id=str(tiny), dtype="bfloat16"))),
        lambda: built.append(load(ModelSpec(repo_id=str(tiny), dtype="float32"))),
        lambda: built.append(empty_model(tiny, torch.bfloat16)),
    ]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 3
    assert set(most) == {1}
    assert (torch.get_default_dtype(), PreTrainedModel.tie_weights, torch.linspace) == before


def test_nf4_is_the_same(request):
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    codes, scale = quantize_nf4(weight)
    back = dequantize_nf4(codes, scale, weight.shape)
    request.getfixturevalue("while_another_builds")
    assert torch.equal(codes, quantize_nf4(weight)[0])
    again = dequantize_nf4(codes, scale, weight.shape)
    assert again.dtype == torch.float32
    assert torch.equal(back, again)


def test_whether_weights_are_packed_is_the_same(request):
    dtypes = torch.float32, torch.bfloat16
    rightly = [weights._packs_rightly(dtype) for dtype in dtypes]
    request.getfixturevalue("while_another_builds")
    assert [weights._packs_rightly(dtype) for dtype in dtypes] == rightly
    assert weights._gain_in_fp32() > 0


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_run_and_its_answers_are_the_same(tiny, request, temperature):
    training = TrainConfig(steps=2, batch_size=2, warmup_steps=0)
    config = RunConfig(
        model=ModelSpec(repo_id=str(tiny), dtype="float32"),
        technique=LoRA(r=4),
        stages=[Stage(data=DataSpec(rows=ROWS, heldout=4), training=training)],
    )

    def made():
        run = finetune(config)
        asked = compare(run.id, "say red", max_new_tokens=8, temperature=temperature)
        losses = [event.loss for event in run.events() if isinstance(event, StepDone)]
        return losses, [answer.text for answer in asked.answers]

    before = made()
    request.getfixturevalue("while_another_builds")
    assert made() == before


def test_all_numbers_that_the_library_makes_name_their_dtype():
    unnamed = []
    for folder in ("lib", "playground"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                    continue
                owner, name = ast.unparse(call.func.value), call.func.attr
                makes = (owner == "torch" and name in FACTORIES) or (owner in ("nn", "torch.nn") and name in LAYERS)
                if makes and not any(keyword.arg == "dtype" for keyword in call.keywords):
                    unnamed.append(f"{path.relative_to(REPOSITORY)}:{call.lineno}: {ast.unparse(call)}")
    assert unnamed == []
