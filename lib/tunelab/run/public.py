"""What a run says of itself to others: files and folders by their names alone, rows in memory only counted."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml

from tunelab.config import RunConfig
from tunelab.techniques.base import PROVENANCE_FILE

if TYPE_CHECKING:
    from tunelab.run.reports import Report
    from tunelab.run.run import Run

HUB_ID = r"[\w.-]+(/[\w.-]+)?"
NAMED = ("source", "heldout", "repo_id", "base")  # settings that may hold a file or a folder
LEFT_OUT = ("rows", "heldout_rows")


def provenance(run: Run) -> dict[str, Any]:
    """What `tunelab.json` says of the run's adapter: `technique`, `base_published_as`, `base_sha256`, `base_note`, of a
    base from the Hub `base_revision`, its commit, and, unknown to adapters of older versions, `ends`, the tokens that
    end an answer, and `plain_prompt`, the form of a prompt where there is no chat template."""
    return json.loads((run.adapter_path / PROVENANCE_FILE).read_text(encoding="utf-8"))


def without_folders(value: Any, key: str = "") -> Any:
    """A dumped configuration for others: files and folders by their names alone, rows in memory only counted."""
    if isinstance(value, dict):
        return {k: without_folders(v, k) for k, v in value.items()}
    if key in LEFT_OUT and isinstance(value, list):
        return f"{len(value)} rows in memory, not included"
    if isinstance(value, list):
        return [without_folders(item, key) for item in value]
    if isinstance(value, str) and (key in NAMED or _is_absolute(value)):
        return name_of(value)
    return value


def name_of(source: str) -> str:
    """A Hub id or a plain name as it is; of a path the last part."""
    return source if re.fullmatch(HUB_ID, source) else re.split(r"[/\\]", source.rstrip("/\\"))[-1]


def public_yaml(config: RunConfig) -> str:
    """The configuration as `tunelab train` reads it, without the fields left at their defaults."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    values["technique"] = {"kind": config.technique.kind, **values["technique"]}
    return yaml.safe_dump(without_folders(values), sort_keys=False, allow_unicode=True)


def stage_names(run: Run) -> list[str]:
    """What the stages of a run are called, in order."""
    return [stage.name or name_of(stage.data.title) for stage in run.config.stages]


def stages_in_words(run: Run) -> list[str]:
    """How a run of several stages came about, and which of them its result holds; nothing of a run of one stage."""
    names = stage_names(run)
    if len(names) == 1:
        return []
    lines = [f"Trained in {len(names)} stages, one after the other: {', then '.join(names)}"]
    if (kept := run.progress().stage) < len(names) - 1:
        lines.append(f"This is the result of stage {kept + 1} ({names[kept]}): nothing of a later stage is in it")
    return lines


def without_paths(text: str, run: Run) -> str:
    """A sentence of a run, in which a file of it stands by its name alone."""
    config = run.config
    named = [config.model.repo_id, *(str(file) for stage in config.stages for file in _files(stage.data))]
    folders = {str(run.root), str(run.path), str(Path.home()), os.getcwd()}
    folders |= {str(Path(one).parent) for one in named if _is_absolute(one)}
    for folder in sorted(folders - {"/", "."}, key=len, reverse=True):
        text = text.replace(f"{folder}{os.sep}", "").replace(folder, PurePath(folder).name)
    return text


def public_report(report: Report, run: Run) -> Report:
    """The report with files by their names alone in every sentence of it: notes, errors of a metric, names of data."""
    return type(report).model_validate(_told(report.model_dump(), run))


def _told(value: Any, run: Run) -> Any:
    if isinstance(value, dict):
        return {key: _told(item, run) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_told(item, run) for item in value]
    if not isinstance(value, str):
        return value
    return name_of(value) if _is_absolute(value) else without_paths(value, run)


def _files(data: Any) -> list[str]:
    return [one for one in (data.source, data.heldout) if isinstance(one, str)]


def _is_absolute(text: str) -> bool:
    return "\n" not in text and PurePath(text).is_absolute() and len(PurePath(text).parts) > 2
