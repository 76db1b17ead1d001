"""What to load, what to learn from, how to train: the frozen objects that describe a run completely.

One `Field` per setting is the single source for its validation, its form in the app, its command-line flag and its
documentation. Nothing here imports torch or knows a technique; `config.py` brings both together.
"""

from __future__ import annotations

import datetime
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

STARTER = "starter"
INSTRUCTION_TOKENS = 130  # of one of the probe's instructions and its answer, about
# what a column can be: what is asked, what stands beside it, what is learned, what stands before, whose row it is
ROLES = (
    *(
        "instruction",
        "input",
        "context",
        "output",
        "prompt",
        "completion",
        "system",
        "messages",
        "conversations",
        "text",
    ),
    *("history", "choices", "chosen", "label", "group"),
)


class Spec(BaseModel):
    """The base of every configuration object. Frozen, and an unknown field is an error: what a run shows is what it was
    given. No number may be infinite or none at all: nothing can be done so many times, and nothing compares with it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings")

    def __hash__(self) -> int:  # pydantic's own fails where a field is a dict
        return hash((type(self), _frozen(dict(self))))


def _frozen(value: Any) -> Any:
    """The same as something that can be hashed; of equal values the same."""
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


class ModelSpec(Spec):
    """Which model to load, and how."""

    repo_id: str = Field(
        description=f"The model: '{STARTER}' (built in, works offline), a Hugging Face Hub id such as "
        "'HuggingFaceTB/SmolLM2-360M-Instruct', or a folder or GGUF file on this machine.",
        min_length=1,
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub. None: the default branch.")
    quantization: Literal["nf4", "int8", "none"] = Field(
        "none",
        description="Precision in which the frozen weights are stored. 'nf4': 4 bits, as in QLoRA (Dettmers et al. "
        "2023); 'int8': 8 bits (Dettmers et al. 2022); 'none': the dtype below.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Precision of the computation. 'auto' measures which is fastest on this machine."
    )
    max_length: int = Field(512, ge=16, le=32768, description="Longest row in tokens; longer ones are cut at the end.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to compute. 'auto': a CUDA GPU if there is one, else the CPU."
    )
    keep_dequantized: bool | Literal["auto"] = Field(
        "auto",
        description="Keep the quantised weights unpacked while training: the same values, faster, more memory. 'auto' "
        "does so while they take less than a quarter of the free memory. (Packed int8 also rounds activations to 8 "
        "bits when it answers.)",
    )

    @property
    def local_path(self) -> str | None:
        """The folder or GGUF file on this machine that the model is in, absolute; None for one that has a name."""
        path = os.path.expanduser(self.repo_id)  # what can't be a path is none
        is_file = self.names_gguf and os.path.isfile(path)
        return str(Path(path).resolve()) if is_file or os.path.isdir(path) else None

    @property
    def names_gguf(self) -> bool:
        """Whether the model is named by a GGUF file, be it there or not."""
        return self.repo_id.lower().endswith(".gguf")

    @property
    def base_identity(self) -> dict[str, Any]:
        """What the base's answers depend on, by setting. Specs that agree in it stand on the same base, whatever their
        device and the length of their rows. `keep_dequantized` is part of it for int8 alone: NF4 weights kept unpacked
        are the values that the packed ones stand for, while packed int8 rounds activations too."""
        repo_id = self.local_path or self.repo_id
        names = ("revision", "quantization", "dtype", *(["keep_dequantized"] if self.quantization == "int8" else []))
        return {"repo_id": repo_id} | {name: getattr(self, name) for name in names}


def base_differences(*specs: ModelSpec) -> list[str]:
    """The settings in which the bases of these specs differ; none where all stand on the same. Where no revision is
    named, it may be any: whether the weights are the same is then told by their sha256 (`Run.check_base`)."""
    identities = [spec.base_identity for spec in specs]
    values = {name: [one.get(name) for one in identities] for identity in identities for name in identity}
    values["revision"] = [one for one in values["revision"] if one is not None]
    return [name for name, found in values.items() if any(one != found[0] for one in found)]


class DataSpec(Spec):
    """What to learn from, and which rows are held out to measure it."""

    source: str | None = Field(
        None,
        description="A built-in set ('python-docs'), a file (CSV, TSV, JSON, JSONL, Parquet, Excel, plain text; gz or "
        "zip "
        "of these), or a Hub data set id. None when `rows` is given.",
    )
    subset: str | None = Field(None, description="The configuration of a Hub data set, e.g. 'en'. None: its only one.")
    split: str | None = Field(
        None, description="The part of a Hub data set to train on. None: 'train'; its test part is then held out."
    )
    header: Literal["auto", "first row", "none"] = Field(
        "auto",
        description="Whether a CSV or Excel file begins with the columns' names. 'none': they are called column1, "
        "column2, … "
        "'auto': it has to, and a first line that looks like a row is refused.",
    )
    rows: tuple[dict[str, Any], ...] | None = Field(
        None,
        description="Rows in memory: a list of dicts, a pandas DataFrame or a datasets.Dataset. They are stored in "
        "the run, so that it can be repeated.",
    )
    columns: dict[str, str] | None = Field(
        None,
        description=f"Which column plays which role, e.g. {{'prompt': 'question', 'completion': 'answer'}}; instead "
        "of a "
        f"column, a template: {{'completion': '{{intent}}: {{slots.value}}'}}. Roles: {', '.join(ROLES)}. None: "
        "detected.",
    )
    template: str | None = Field(
        None,
        description="Text of the user's turn with {column} placeholders, e.g. 'Classify this message: {text}'. "
        "None: the prompt column as it is.",
    )
    system: str | None = Field(None, description="A system prompt put before every row that has none.")
    labels: dict[str, str] | None = Field(
        None, description="Words for labels, e.g. {'0': 'ham', '1': 'spam'}: a model learns words better than numbers."
    )
    heldout: float | str = Field(
        "auto",
        description="Rows never trained on: a share below 1 (0.1), a number of rows (200), or a file of its own. "
        "'auto': the "
        "data's own test part if it has one, else a tenth.",
    )
    heldout_rows: tuple[dict[str, Any], ...] | None = Field(
        None, description="Held-out rows in memory; replaces `heldout`."
    )
    fixes: tuple[str, ...] = Field(
        (),
        description="What mends the rows before they are divided, e.g. ['drop-duplicates']; `tunelab data doctor` "
        "names them. Held-out rows of their own stay as they are.",
    )
    limit: int | None = Field(None, ge=1, description="Use at most this many training rows. None: all.")
    seed: int = Field(0, ge=0, description="Seed of the split into training and held-out rows.")

    @field_validator("rows", "heldout_rows", mode="before")
    @classmethod
    def _rows_as_dicts(cls, value: Any) -> Any:
        return plain_rows(value)

    @field_validator("columns")
    @classmethod
    def _known_roles(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for role in value or {}:
            if role not in ROLES:
                raise ValueError(f"there is no role '{role}'; allowed: {', '.join(ROLES)}")
        return value

    @field_validator("heldout", mode="before")
    @classmethod
    def _share_rows_or_file(cls, value: Any) -> Any:
        try:
            number = float(value)  # also where a form or YAML gave it as text: no file is called so
        except (TypeError, ValueError):
            return value
        if not math.isfinite(number) or number <= 0 or (number >= 1 and number != int(number)):
            raise ValueError("allowed: a share between 0 and 1, a whole number of rows, or a file")
        return number

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.source is None) == (self.rows is None):
            raise ValueError("give either `source` (a built-in name, a file, a Hub id) or `rows`, not both")
        return self

    @property
    def title(self) -> str:
        """A short name for tables and headings."""
        if self.source is None:
            return f"{len(self.rows or ())} rows in memory"
        return Path(self.source).name if Path(self.source).suffix else self.source


def plain_rows(value: Any) -> Any:
    """Rows of a list, a DataFrame or a `datasets.Dataset` as dicts of what JSON knows; anything else unchanged, for
    pydantic to judge.

    Raises:
        ValueError: two columns have one name, or bytes or half a character are no text.
    """
    pandas, datasets = sys.modules.get("pandas"), sys.modules.get("datasets")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        names = [str(name) for name in value.columns]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the column '{doubled}' stands twice; give each column its own name")
        columns = [value.iloc[:, place].tolist() for place in range(len(names))]
        value = [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
    elif datasets is not None and isinstance(value, datasets.Dataset):
        value = _named_labels(value.to_list(), value.features, datasets)
    if not isinstance(value, list | tuple):
        return value
    return [_plain_row(row, number) if isinstance(row, Mapping) else row for number, row in enumerate(value, 1)]


def _named_labels(rows: list[Any], features: Any, datasets: Any) -> list[Any]:
    """Rows of a data set whose labels are words, where it knows them."""
    named = {name: feature for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    for row in rows:
        for name, feature in named.items():
            if row[name] is not None and 0 <= row[name] < feature.num_classes:
                row[name] = feature.int2str(row[name])
    return rows


def _plain_row(row: Mapping[Any, Any], number: int) -> Any:
    try:
        return _plain(row)
    except ValueError as error:
        raise ValueError(f"row {number}, {error}") from None


def _plain(value: Any) -> Any:
    """A cell as JSON knows it: what is missing is None, numbers stay numbers, dates are ISO text, at midnight without
    the time."""
    if type(value) is str:
        if not value.isascii():
            _check_text(value)
        return value
    if type(value) in (int, bool, type(None)):
        return value
    if type(value).__module__.partition(".")[0] == "numpy":
        return _plain((_in_microseconds(value) if value.dtype.kind in "mM" else value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ValueError("holds bytes that are no UTF-8 text; leave the column out, or decode it") from None
    if type(value).__name__ in ("NaTType", "NAType"):  # of pandas, which need not be installed
        return None
    if isinstance(value, datetime.datetime):
        at_midnight = value.tzinfo is None and value.time() == datetime.time.min
        return value.date().isoformat() if at_midnight else value.isoformat()
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = ord(value[error.start])
        raise ValueError(f"holds half a character (\\u{half:04x} alone), which no text can; mend it") from None


def _plain_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        try:
            plain[str(key)] = _plain(item)
        except ValueError as error:
            raise ValueError(f"'{key}': {error}") from None
    return plain


def _in_microseconds(value: Any) -> Any:
    """NumPy's dates and durations in the unit of Python's own."""
    return value.astype(f"{value.dtype.kind}8[us]")


class TrainConfig(Spec):
    """How long, how fast and how carefully to train."""

    steps: int = Field(60, ge=1, le=1_000_000, description="Optimiser steps.")
    batch_size: int = Field(8, ge=1, le=1024, description="Rows per forward pass.")
    gradient_accumulation_steps: int = Field(
        1,
        ge=1,
        le=1024,
        description="Forward passes per optimiser step, of batch_size rows each: batch_size 4 in 2 passes learns what "
        "8 in 1 does, from the same rows, in less memory and a little more time.",
    )
    learning_rate: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] = Field(
        "auto", description="Peak learning rate. 'auto': the technique's own default."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "cosine", description="How the learning rate falls after the warm-up: to zero, or not at all."
    )
    warmup_steps: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="Steps over which the learning rate rises from zero. 'auto': 5 % of the steps."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm (clipping).")
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"] = Field(
        "auto",
        description="'adamw_8bit' keeps AdamW's two moments in 8 bits (Dettmers et al. 2022), for full fine-tuning, "
        "where they take most of the memory; 'paged_…' moves them to the machine's memory where the card is full "
        "(Dettmers et al. 2023). Both need a CUDA GPU. 'auto': 'adamw', or 'paged_adamw_32bit', which computes the "
        "same, where a GPU's memory would not do without.",
    )
    weight_decay: float = Field(
        0.0, ge=0, le=1, description="Pull of the trained weights towards zero (AdamW). Use when few rows repeat often."
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the target spread evenly over the vocabulary (Szegedy et al. 2016, section 7). Use when "
        "the rows hold mistakes, or answers become too sure of themselves.",
    )
    neftune_alpha: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Noise on the embeddings while training, 5 to 15 (NEFTune, Jain et al. 2024). Use with few rows of "
        "instructions, when answers get short and copy the training rows.",
    )
    kl_weight: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Pull of the answers' distribution towards the base's, 0.1 to 1 (KL divergence on the scored "
        "tokens). Use against forgetting when there is nothing to replay; a step takes a third longer.",
    )
    replay_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of general examples mixed into the training rows, 0.05 to 0.3: of the rows, or of the "
        "scored tokens where these are used up sooner. Use against forgetting: the surest means there is. Which ones: "
        "the stage's `replay`.",
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="Compute activations again in the backward pass instead of keeping them: a third slower, "
        "much less memory with long rows. 'auto': when the forecast says that memory would not do without.",
    )
    eval_every: int = Field(10, ge=1, description="Steps between two measurements of the held-out loss.")
    eval_rows: int = Field(32, ge=1, description="Held-out rows measured each time (the first ones, always the same).")
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="Stop after this many measurements without a better held-out loss (or metric, see choose_by). "
        "None: never.",
    )
    keep_best: bool = Field(
        True,
        description="At the end, restore the adapter that had the lowest held-out loss, or the best metric (see "
        "choose_by).",
    )
    metric: str | None = Field(
        None,
        description="A figure of answers that is measured along with the held-out loss: 'accuracy' or 'exact_match' "
        "for labels, 'field_f1' for JSON, 'number_match', 'chrf' or 'rouge_l' for texts, … None: no answers are "
        "written while training.",
    )
    metric_rows: int = Field(
        16, ge=1, le=10_000, description="Held-out rows that are answered for `metric` (the first ones)."
    )
    forgetting_rows: int = Field(
        4,
        ge=0,
        le=60,
        description="General instructions whose loss is measured along with the held-out loss, to see what is "
        f"forgotten while it happens: each costs what a held-out row of {INSTRUCTION_TOKENS} tokens does. 0: none.",
    )
    choose_by: Literal["loss", "metric"] = Field(
        "loss",
        description="What early stopping and keep_best look at: the held-out loss, or `metric` (of equal ones the "
        "lower loss).",
    )
    samples: int = Field(
        0,
        ge=0,
        le=20,
        description="Held-out prompts (the first ones) whose answers are written down at each evaluation, to see how "
        "they change. 0: none.",
    )
    keep_adapters: bool = Field(
        False,
        description="Keep what was trained at each evaluation, to ask it later: `tunelab compare RUN@STEP`. How much "
        "space that takes is told before.",
    )
    checkpoint_every: int = Field(20, ge=1, description="Steps between two checkpoints, from which a run can resume.")
    length_buckets: bool = Field(True, description="Put rows of similar length into one batch: less padding.")
    fast: bool = Field(True, description="Use the project's faster computation where the model allows it.")
    cache_frozen: bool = Field(
        True,
        description="Where the lowest layers have no adapter (LoRA's `layers`): keep what they make of a row, instead "
        "of computing it again in every epoch and evaluation. About 1.2 KB per token for the built-in model.",
    )
    seed: int = Field(0, ge=0, description="Seed of initialisation, order and dropout.")

    @model_validator(mode="after")
    def _chosen_by_what_is_measured(self) -> Self:
        if self.choose_by == "metric" and self.metric is None:
            raise ValueError("choose_by = 'metric' needs one: set `metric`, e.g. to 'exact_match', or choose by 'loss'")
        return self

    @property
    def choosing_rows(self) -> int:
        """How many held-out rows, the first ones, choose which step's result is kept."""
        if not self.keep_best and not self.early_stopping_patience:
            return 0
        return max(self.eval_rows, self.metric_rows) if self.choose_by == "metric" else self.eval_rows

    @property
    def evaluations(self) -> int:
        """How often a stage with held-out rows is measured at most: after its first step, every `eval_every` steps, and
        after its last one."""
        return len({1, *range(self.eval_every, self.steps + 1, self.eval_every), self.steps})

    @property
    def resolved_warmup_steps(self) -> int:
        return round(0.05 * self.steps) if self.warmup_steps == "auto" else self.warmup_steps


class Stage(Spec):
    """One part of a run: its data and its training. A run trains its stages in order, on the same adapter."""

    data: DataSpec
    training: TrainConfig = Field(default_factory=TrainConfig)
    learn: Literal["instructions", "text"] = Field(
        "instructions",
        description="'instructions': the assistant's turns are scored; 'text': plain text, every token is scored.",
    )
    name: str | None = Field(None, description="A name for charts and tables, e.g. 'domain text'.")
    replay: DataSpec | None = Field(
        None,
        description="Where the general examples of `replay_share` come from. None: the built-in set 'general'.",
    )

    @property
    def replayed(self) -> DataSpec:
        """Where general examples come from."""
        return self.replay or DataSpec(source="general")
