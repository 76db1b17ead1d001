"""CSV, JSON and JSONL files as rows, read by our own capped readers.

Cells stay what was written (`007` stays `007`, `NA` stays `NA`), nothing is unpacked, and every error names the file,
the line and the next step. General loaders guess types, unpack archives and fail with tracebacks.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from tunelab.errors import UserError, listed

MAX_BYTES = 200_000_000
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
Row = dict[str, Any]


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a file, in order.

    Raises:
        UserError: no such file, too large, not UTF-8, empty, or broken; with the line where it is.
    """
    path = Path(path).expanduser()
    text = _read_text(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = _read_csv(text, path.name)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = _read_jsonl(text, path.name)
    else:
        rows = _read_json(text, path.name)
    if not rows:
        raise UserError(
            f"{path.name} holds no rows. Give a file with at least two rows: one to train, one to hold out."
        )
    return rows


def _read_text(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path.name}: files of type '{path.suffix}' are not read. Allowed: {', '.join(SUFFIXES)}.")
    if not os.path.isfile(path):  # nor could be one, by its name
        raise UserError(f"There is no file {path}. Check the path, or use the built-in set 'python-docs'.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(
            f"{path.name} has {size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:,.0f} MB are read. Take a part of it."
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path.name} is not UTF-8 text (byte {error.start}). Save it as UTF-8, e.g. 'CSV UTF-8' in a spreadsheet."
        ) from None
    if not text.strip():
        raise UserError(f"{path.name} is empty. Give a file with a header or one JSON object per line.")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(
            f"{path.name}, line {line}: holds a NUL byte; this is not a text file. Export it again as text."
        )
    return text


def _read_csv(text: str, name: str) -> list[Row]:
    csv.field_size_limit(MAX_BYTES)
    header_line = text.splitlines()[0]
    delimiter = max(",;\t|", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                raise UserError(
                    f"{name}, line {reader.line_num}: {len(cells)} cells, but the header names {len(header)} columns "
                    f"({listed(header)}). Put cells that contain '{delimiter}' into double quotes."
                )
            rows.append(dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True)))
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}. Check the quotes in this line.") from None
    doubled = sorted({column for column in header if header.count(column) > 1})
    if doubled:
        raise UserError(f"{name}, line 1: the column '{doubled[0]}' stands twice. Give each column its own name.")
    return rows


def _read_jsonl(text: str, name: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            if number == 1 and line.lstrip().startswith("["):
                return _read_json(text, name)  # a JSON list under the wrong name
            raise UserError(
                f"{name}, line {number}: not valid JSON: {_reason(error)}, near {_near(line, error)}. "
                "Each line must be one JSON object."
            ) from None
        if number == 1 and isinstance(value, list):
            return _read_json(text, name)
        rows.append(_object(value, name, f"line {number}"))
    return rows


def _read_json(text: str, name: str) -> list[Row]:
    try:
        value = json.loads(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines[:2]) and lines[0].endswith("}"):
            return _read_jsonl(text, name)  # one object per line under the wrong name
        line = getattr(error, "lineno", 1)
        raise UserError(
            f"{name}, line {line}: not valid JSON: {_reason(error)}, near {_near(text, error)}. Mend the line, or save "
            "one JSON object per line as .jsonl."
        ) from None
    if isinstance(value, dict):
        lists = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
        if len(lists) != 1:
            raise UserError(f"{name}: the file must hold a list of objects; it holds one object ({listed(value)}).")
        value = value[lists[0]]
    if not isinstance(value, list):
        raise UserError(f"{name}: the file must hold a list of objects; it holds {type(value).__name__}.")
    return [_object(row, name, f"row {number}") for number, row in enumerate(value, 1)]


def _object(value: Any, name: str, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(
            f"{name}, {where}: is {_short(value)}, not an object. Write each row as "
            '{"prompt": "…", "completion": "…"}.'
        )
    return value


def _reason(error: ValueError) -> str:
    return error.msg.lower() if isinstance(error, json.JSONDecodeError) else str(error)


def _near(text: str, error: ValueError) -> str:
    position = error.pos if isinstance(error, json.JSONDecodeError) else 0
    return _short(text[max(0, position - 15) : position + 15].strip() or text[-20:].strip())


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 40 else shown[:37] + "…"
