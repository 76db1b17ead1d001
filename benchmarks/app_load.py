"""Ten people who compare at once against the running app: `python -m benchmarks.app_load` (five minutes).

Clients without a browser ask `/compare` (base and a LoRA r16) over loopback, each its next prompt as soon as it has its
answer. First one client asks one after the other, which is how the app would answer without batching; then ten ask at
once. Answers are compared with those that were given one by one: in fp32 they are equal; in bf16, where one differs,
`gap` is how far the two candidates' logits at the first differing token lie apart, in steps of bf16 at that size.
`first_token` is the time until each column has begun to answer somebody who asks alone. `longest_wait` is over the fair
share, the mean wait of the ten. `while_answering`, `after_cancel` and `after_leaving` are the app's share of a core
during a long answer, after it was cancelled, and after its client was killed and counts as one that has left: about
zero where its rows are free.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import Figure, run
from playground import loopback
from playground.leaving import GRACE_SECONDS
from tunelab import DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, TrainConfig, finetune, read_data
from tunelab.machine import libraries

PORT = 7974
PEOPLE, PROMPTS, TOKENS = 10, 20, 48
STORY = "Write a very long story about everything."
LEAVER = """
import sys, time
from gradio_client import Client
job = Client(sys.argv[1], verbose=False).submit([sys.argv[2]], sys.argv[3], "", 1500, 1.5, 0, api_name="/stream")
while len(job.outputs()) < 5: time.sleep(0.05)
print("answering", flush=True)
time.sleep(600)
"""

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """One question of a client: what, the answers, and how long it took."""

    prompt: str
    texts: Texts
    seconds: float


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    rows = read_data(DataSpec(source="python-docs")).heldout[:PROMPTS]
    prompts = [row.prompt for row in rows]
    for dtype in options.dtypes:
        with tempfile.TemporaryDirectory() as folder:
            made = _run(Path(folder), dtype)
            with _app(Path(folder)) as (app, url):
                yield from _load(options, dtype, made, prompts, app, url)


def _load(
    options: argparse.Namespace, dtype: str, made: Run, prompts: list[str], app: psutil.Process, url: str
) -> Iterator[Figure]:
    client = _Client(url, made)
    client.ask(prompts[0])  # the base is resident from here on
    yield Figure.of(f"{dtype}: first_token", "s", [client.seconds_to_first_token(prompt) for prompt in prompts])
    started = time.perf_counter()
    serial = _in_turn(client, prompts, options.seconds)
    alone = 60 * len(serial) / (time.perf_counter() - started)
    before = app.memory_info().rss
    started = time.perf_counter()
    together = _at_once(url, made, prompts, options.seconds)
    rate = 60 * len(together) / (time.perf_counter() - started)
    waits = [one.seconds for one in together]
    yield Figure.once(f"{dtype}: one by one", "per min", alone)
    yield Figure.once(f"{dtype}: ten at once", "per min", rate)
    yield Figure.once(f"{dtype}: ratio", "x", rate / alone)
    yield Figure.once(f"{dtype}: longest_wait", "fair", max(waits) / statistics.mean(waits))
    yield Figure.once(f"{dtype}: memory", "x", app.memory_info().rss / before)
    yield from _equality(dtype, made, serial, together)
    answering, cancelled = _around_cancel(app, url, made)
    yield Figure.once(f"{dtype}: while_answering", "core", answering)
    yield Figure.once(f"{dtype}: after_cancel", "core", cancelled)
    yield Figure.once(f"{dtype}: after_leaving", "core", _after_leaving(app, url, made))


class _Client:
    """Somebody who asks the app."""

    def __init__(self, url: str, made: Run) -> None:
        from gradio_client import Client

        self.client, self.run = Client(url, verbose=False), made.id

    def ask(self, prompt: str) -> Asked:
        started = time.perf_counter()
        answer: dict[str, Any] = self.client.predict([self.run], prompt, "", TOKENS, api_name="/compare")
        return Asked(prompt, tuple(one["text"] for one in answer["answers"]), time.perf_counter() - started)

    def seconds_to_first_token(self, prompt: str) -> float:
        """Until each column has begun to answer; the rest is cancelled."""
        started = time.perf_counter()
        job = self.client.submit([self.run], prompt, "", TOKENS, 0.0, 0, api_name="/stream")
        update: dict[str, Any]
        for update in job:
            if all(one["text"] for one in update["answers"]):
                break
        seconds = time.perf_counter() - started
        job.cancel()
        return seconds


def _in_turn(client: _Client, prompts: list[str], seconds: float) -> list[Asked]:
    """Every prompt once, and on until the time is over."""
    end = time.perf_counter() + seconds
    done: list[Asked] = []
    while len(done) < len(prompts) or time.perf_counter() < end:
        done.append(client.ask(prompts[len(done) % len(prompts)]))
    return done


def _at_once(url: str, made: Run, prompts: list[str], seconds: float) -> list[Asked]:
    """Ten clients, each beginning at another prompt."""
    clients = [_Client(url, made) for _ in range(PEOPLE)]
    done: list[Asked] = []
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        place = number * len(prompts) // PEOPLE
        while time.perf_counter() < end:
            done.append(clients[number].ask(prompts[place % len(prompts)]))
            place += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(PEOPLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def _equality(dtype: str, made: Run, serial: list[Asked], together: list[Asked]) -> Iterator[Figure]:
    """How many answers are not those that were given one by one, and how far from a tie the worst of them is."""
    known = {one.prompt: one.texts for one in serial}
    differing = {
        (one.prompt, column, known[one.prompt][column], text)
        for one in together
        for column, text in enumerate(one.texts)
        if text != known[one.prompt][column]
    }
    yield Figure.once(f"{dtype}: answers", "", sum(len(one.texts) for one in together))
    yield Figure.once(f"{dtype}: differing", "kinds", len(differing))
    if differing:
        yield Figure.of(f"{dtype}: gap", "bf16 steps", _gaps(made, sorted(differing)))


def _gaps(made: Run, differing: list[tuple[str, int, str, str]]) -> list[float]:
    """Of each pair of answers, how far the logits of the two first tokens that differ lie apart."""
    import torch

    from tunelab import load
    from tunelab.data import Message, encode_prompt

    base = load(made.base_spec)
    technique = made.config.technique
    model = technique.load(base, made.adapter_path).eval()
    gaps = []
    for prompt, column, one, other in differing:
        first, second = (base.tokenizer(text, add_special_tokens=False).input_ids for text in (one, other))
        same = next(
            (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(map(len, (first, second)))
        )
        ends = [base.tokenizer.eos_token_id]
        candidates = [(ids[same:] or ends)[0] for ids in (first, second)]
        ids = [*encode_prompt([Message("user", prompt)], base.tokenizer), *first[:same]]
        with torch.no_grad(), technique.on(model) if column else technique.off(model):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
        a, b = (float(logits[token]) for token in candidates)
        step = 2.0 ** (math.floor(math.log2(max(abs(a), abs(b), 1e-9))) - 7)  # bf16 keeps seven bits after the first
        gaps.append(abs(a - b) / step)
    return gaps


def _around_cancel(app: psutil.Process, url: str, made: Run) -> tuple[float, float]:
    """The app's share of a core while it writes a long answer, and once that was cancelled."""
    from gradio_client import Client

    job = Client(url, verbose=False).submit([made.id], STORY, "", 1500, 1.5, 0, api_name="/stream")
    while len(job.outputs()) < 5:
        time.sleep(0.05)
    answering = _share(app)
    job.cancel()
    return answering, _share(app)


def _after_leaving(app: psutil.Process, url: str, made: Run) -> float:
    command = [sys.executable, "-c", LEAVER, url, made.id, STORY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as leaver:
        assert leaver.stdout is not None
        leaver.stdout.readline()
        leaver.kill()
    time.sleep(GRACE_SECONDS)  # until then it may come back
    return _share(app)


def _share(app: psutil.Process) -> float:
    """Of a core, in a second that begins a second from now."""
    time.sleep(1.0)
    before = sum(app.cpu_times()[:2])
    time.sleep(1.0)
    return sum(app.cpu_times()[:2]) - before


def _run(folder: Path, dtype: str) -> Run:
    """A short training: enough that its answers are others than the base's."""
    return finetune(
        RunConfig(
            name=f"load {dtype}",
            model=ModelSpec(repo_id="starter", dtype=dtype),
            technique=LoRA(r=16),
            stages=(
                Stage(
                    data=DataSpec(source="python-docs", heldout=40),
                    training=TrainConfig(steps=6, batch_size=4, learning_rate=1e-3, eval_every=6, forgetting_rows=0),
                ),
            ),
        ),
        root=folder,
    )


@contextmanager
def _app(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-m", "playground", "--no-browser", "--runs", str(folder), "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        line = app.stdout.readline()
        assert "http://" in line, line
        try:
            yield psutil.Process(app.pid), line.split()[-1].partition("/?")[0]
        finally:
            app.terminate()


def main() -> None:
    libraries.prepare()
    loopback.exempt()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.app_load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the ten, and before them the one, ask")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="precisions to measure")
    run(measure, parser)


if __name__ == "__main__":
    main()
