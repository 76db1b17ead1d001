"""Flags of the command line made from the fields of the specs, and the fields that given flags make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunelab.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

# how the rows of a file or a Hub data set are found
ROW_FLAGS = ("header", "subset", "split")
MODEL_FLAGS = ("revision", "quantization", "max_length", "dtype", "device")
TEXTS = ("template", "system", "init_text")  # are taken as they are written


def data_flags(parser: argparse.ArgumentParser, name: str = "--data") -> None:
    """Flags that say what rows are and how they are read; `name`: of the one that names them."""
    from tunelab.data.builtin import BUILTIN
    from tunelab.spec import DataSpec

    built_in = ", ".join(f"'{name}'" for name in BUILTIN)
    kinds = "CSV, TSV, JSON, JSONL, Parquet, Excel, text; gz or zip of these"
    parser.add_argument(name, metavar="FILE", help=f"a file ({kinds}), a Hub data set, or built in: {built_in}")
    described = DataSpec.model_fields
    parser.add_argument("--heldout", metavar="FILE|SHARE|ROWS", help=described["heldout"].description)
    parser.add_argument("--columns", nargs="+", metavar="ROLE=COLUMN", help=described["columns"].description)
    parser.add_argument("--labels", nargs="+", metavar="LABEL=WORD", help=described["labels"].description)
    parser.add_argument(
        "--fix", nargs="+", action="extend", default=[], metavar="NAME", help=described["fixes"].description
    )


def technique_flags(parser: argparse.ArgumentParser) -> None:
    """A flag per setting of any technique; which technique has it stands in its help."""
    from tunelab.techniques import TECHNIQUES

    homes: dict[str, list[Any]] = {}
    for technique in TECHNIQUES.values():
        for name in technique.model_fields:
            homes.setdefault(name, []).append(technique)
    for name, having in homes.items():
        if name == "kind":
            continue
        # techniques that call different things alike each say what they mean
        meanings: dict[str, list[str]] = {}
        for technique in having:
            own = technique.model_fields[name]
            default = "" if own.default is None else f" (default: {own.default})"
            meanings.setdefault(f"{own.description}{default}", []).append(technique.title)
        described = " ".join(f"{', '.join(titles)}: {text}" for text, titles in meanings.items())
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"technique.{name}",
            metavar="VALUE",
            help=described.replace("%", "%%"),
        )


def spec_flags(parser: argparse.ArgumentParser, spec: type[BaseModel], names: tuple[str, ...]) -> None:
    """A flag per field; the value stays text, for the spec to validate."""
    for name in names:
        field = spec.model_fields[name]
        default = "" if field.is_required() or field.default is None else f" (default: {field.default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"{spec.__name__}.{name}",
            metavar="VALUE",
            help=f"{field.description}{default}".replace("%", "%%"),
        )


def given(options: argparse.Namespace, spec: str) -> dict[str, Any]:
    """The fields of a spec that were given as flags."""
    values = {key.partition(".")[2]: value for key, value in vars(options).items() if key.startswith(f"{spec}.")}
    return {k: v if k in TEXTS else _value(v) for k, v in values.items() if v is not None}


def flag_value(name: str, value: Any) -> str | None:
    """The text of a flag that `given` reads as `value` (as JSON has it); None where it would read another one."""
    import yaml

    if name in TEXTS:
        return value if isinstance(value, str) else None
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    text = value if isinstance(value, str) else text.removesuffix("\n").removesuffix("\n...")
    return text if _value(text) == value and not text.startswith("-") else None


def _value(text: str) -> Any:
    """A flag's value as YAML reads it: a number, true, or the word itself; a list where commas say so
    (`--target-modules q_proj,v_proj`, `--layers 0,1`)."""
    import yaml

    try:
        value = yaml.safe_load(text)
        return yaml.safe_load(f"[{text}]") if isinstance(value, str) and "," in value else value
    except yaml.YAMLError:
        return text  # the field says what is allowed


def data_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a DataSpec that flags give; rows in memory give way to what a flag names."""
    data = given(options, "DataSpec")
    if options.data:
        data |= {"source": options.data, "rows": None}
    if options.heldout:
        data |= {"heldout": share_or_file(options.heldout), "heldout_rows": None}
    if options.columns:
        data["columns"] = columns_of(options.columns)
    if options.labels:
        data["labels"] = _named(options.labels, "--labels", "LABEL=WORD", "0=ham 1=spam")
    if options.fix:
        data["fixes"] = tuple(options.fix)
    return data


def share_or_file(text: str) -> float | str:
    """What `--heldout` says: a share or a number of rows, or a file."""
    try:
        return float(text)
    except ValueError:
        return text


def _named(pairs: Sequence[str], flag: str, form: str, example: str) -> dict[str, str]:
    """What a flag names, from words such as `role=column`."""
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"{flag} {pair}: write {form}, e.g. {flag} {example}.")
    return dict(pair.split("=", 1) for pair in pairs)


def columns_of(pairs: Sequence[str]) -> dict[str, str]:
    """Roles and columns, from words such as `prompt=question`."""
    return _named(pairs, "--columns", "ROLE=COLUMN", "prompt=question completion=answer")
