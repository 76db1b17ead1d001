"""The model card: what was trained on what, how well it went, and how to use it, in Markdown.

Everything in it follows from the run's directory. Nothing in it is a path of this machine or a row of the data.
"""

from __future__ import annotations

from typing import Any

import yaml

from tunelab.measure.card.of_run import cost_of, trained_of
from tunelab.measure.card.tables import cost_rows, trained_rows
from tunelab.run.public import name_of, provenance, public_yaml, stages_in_words
from tunelab.run.report_words import in_words
from tunelab.run.reports import read_report
from tunelab.run.run import Run
from tunelab.techniques.base import PeftTechnique


def model_card(run: Run, how_to_load: str, notes: tuple[str, ...], library: str | None) -> str:
    """The README.md of an export; `library` is the one that loads it, as the Hub names libraries, if there is one."""
    facts = provenance(run)
    parts = [
        _front_matter(facts, library),
        f"# {run.name}\n\n{run.config.method} of `{facts['base_published_as']}`, made with tunelab.",
        _section("How to load it", how_to_load),
        _section("Good to know", _bullets([*notes, *_base_notes(run, facts)])),
        _section("Data", _data(run)),
        _section("Training", _training(run)),
        _section("Metrics", _metrics(run)),
        _section("Lineage", _lineage(run)),
        _section("Configuration", _configuration(run)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def peft_steps(run: Run) -> str:
    """How to load the adapter of the run, in five lines of Python."""
    base = provenance(run)["base_published_as"]
    if not isinstance(run.config.technique, PeftTechnique):
        return f"PEFT does not have it. With tunelab: `tunelab import THIS.zip --model {base}`."
    return (
        "```python\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{base}")\n'
        f'base = AutoModelForCausalLM.from_pretrained("{base}")\n'
        'model = PeftModel.from_pretrained(base, "the folder with this file")\n'
        "```"
    )


def ends_note(run: Run) -> list[str]:
    """Where answers end, in a sentence."""
    ends = provenance(run).get("ends") or {}
    if not ends:
        return []
    ids = list(ends.values())
    named = " or ".join(f"`{token}` (token {index})" for token, index in ends.items())
    return [f"An answer ends with {named}: `generate` stops there by `eos_token_id={ids if len(ids) > 1 else ids[0]}`."]


def model_steps() -> str:
    """How to load a model that stands on its own."""
    return (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        'tokenizer = AutoTokenizer.from_pretrained("the folder with this file")\n'
        'model = AutoModelForCausalLM.from_pretrained("the folder with this file", dtype="auto")\n'
        "```"
    )


def _front_matter(facts: dict[str, Any], library: str | None) -> str:
    values: dict[str, Any] = {"pipeline_tag": "text-generation", "tags": ["tunelab"]}
    if library:
        values["library_name"] = library
    if "/" in facts["base_published_as"]:
        values["base_model"] = facts["base_published_as"]
    return f"---\n{yaml.safe_dump(values)}---"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _base_notes(run: Run, facts: dict[str, Any]) -> list[str]:
    published = facts["base_published_as"]
    at = f" at commit `{commit}`" if (commit := facts.get("base_revision")) else ""
    notes = [f"The base it was made for: `{published}`{at}, sha256 of its weights `{facts['base_sha256']}`."]
    if facts["base_note"]:
        notes.append(
            f"That base is not exactly the published one: it holds the {facts['base_note']}. On the published weights "
            "answers can differ a little from those seen while training."
        )
    if plain := facts.get("plain_prompt"):
        notes.append(f"The base has no chat template. Ask it in the form in which it was trained: {plain!r}")
    else:
        notes.append(
            "Ask it through the chat template of the base's tokenizer (`apply_chat_template`): it was trained with "
            "that, its default system prompt included. Without it, answers are worse."
        )
    notes += ends_note(run)
    last = run.config.stages[run.progress().stage].data
    if last.system:
        notes.append(f"System prompt it was trained with: {last.system!r}")
    if last.template:
        notes.append(f"The user's turn was made with the template {last.template!r}")
    return notes


def _data(run: Run) -> str:
    if run.imported_from:
        return "Unknown: the adapter was made elsewhere and imported."
    progress = run.progress()
    started = progress.started
    lines = []
    for index, stage in enumerate(run.config.stages[: progress.stage + 1]):
        line = f"Stage {index + 1}: " if len(run.config.stages) > 1 else ""
        line += f"{name_of(stage.data.title)}, learned as {stage.learn}"
        if started:
            line += (
                f"; {started.train_rows[index]:,} rows trained on, {started.heldout_rows[index]:,} held out; "
                f"sha256 of all rows `{started.data_sha256[index]}`"
            )
        lines.append(line)
    return _bullets(lines)


def _training(run: Run) -> str:
    progress = run.progress()
    if run.imported_from or progress.started is None:
        return ""
    cost = cost_of(run, progress, read_report(run.path))
    return _table([*trained_rows(trained_of(run, progress)), *cost_rows(cost)])


def _metrics(run: Run) -> str:
    report = read_report(run.path)
    return f"```text\n{in_words(report)}\n```" if report else ""


def _lineage(run: Run) -> str:
    lines = [f"Run `{run.id}`"]
    if run.imported_from:
        lines.append(f"Imported from `{run.imported_from}`")
    lines += stages_in_words(run)
    if run.lineage:
        lines.append(
            f"Started from the result of {', which started from '.join(f'`{before}`' for before in run.lineage)}"
        )
    return _bullets(lines)


def _configuration(run: Run) -> str:
    if run.imported_from:
        technique = yaml.safe_dump(run.config.technique.model_dump(mode="json"), sort_keys=False)
        return f"```yaml\n{technique}```"
    text = public_yaml(run.pinned)
    return f"As `tunelab train` reads it; files are named without their folders.\n\n```yaml\n{text}```"
