"""`tunelab models`: which models there are for some rows, what each takes here, and which to begin with.

tunelab models
tunelab models --data tickets.csv
tunelab models --data tickets.csv --also ./merged ./model.gguf --probe
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from tunelab.flags import ROW_FLAGS, data_fields, data_flags, given, spec_flags
from tunelab.terminal import add_command, aligned, say

if TYPE_CHECKING:
    from tunelab.choice import Choice, Suited

HEAD = (
    *("model", "at hand", "weights", "context", "memory", "quick run", "tokens a row", "fit", "bits a byte"),
    *("after 20 steps", "licence", "languages"),
)
MOST_LANGUAGES = 30  # letters


def add_commands(commands: Any) -> None:
    """Add `models` to the commands of a parser."""
    from tunelab.spec import DataSpec, ModelSpec, Stage

    command = add_command(
        commands, "models", models, "which model suits your rows, and what each takes on this machine", __doc__
    )
    data_flags(command)
    spec_flags(command, DataSpec, (*ROW_FLAGS, "template", "system", "limit"))
    learn = Stage.model_fields["learn"].description
    command.add_argument("--learn", choices=("instructions", "text"), default="instructions", help=learn)
    command.add_argument(
        "--also", nargs="+", default=(), metavar="MODEL", help="folders, GGUF files or Hub ids as well"
    )
    command.add_argument("--rows", type=int, default=50, help="held-out rows that models are measured on (default: 50)")
    command.add_argument("--probe", action="store_true", help="measure again after 20 steps of training (minutes)")
    command.add_argument("--json", action="store_true", help="as JSON")
    spec_flags(command, ModelSpec, ("quantization", "max_length", "dtype", "device"))


def models(options: argparse.Namespace) -> int:
    """Print the table and the recommendation; the exit code."""
    from tunelab.choice import models_for
    from tunelab.spec import STARTER, DataSpec, ModelSpec

    held = ModelSpec.model_validate({"repo_id": STARTER, "quantization": "nf4"} | given(options, "ModelSpec"))
    data = DataSpec.model_validate(data_fields(options)) if options.data else None
    found = models_for(
        data,
        learn=options.learn,
        model=held,
        also=options.also,
        rows=options.rows,
        probe=options.probe,
        on_progress=say,
    )
    if options.json:
        print(json.dumps(found.as_json(), ensure_ascii=False, indent=1))
        return 0
    print(table(found.models))
    print(*_notes(found), "", found.recommendation, sep="\n")
    return 0


def table(models: tuple[Suited, ...]) -> str:
    """The models as lines of text, without the columns in which nothing stands."""
    lines = [_line(one) for one in models]
    return aligned(list(zip(*(column for column in zip(HEAD, *lines, strict=True) if any(column[1:])), strict=True)))


def _notes(found: Choice) -> list[str]:
    """What to know of the table, a line each."""
    notes = [f"- {one.name}: {note}" for one in found.models if (note := one.note or _unforeseen(one))]
    notes += found.notes
    if found.measured_rows:
        notes.append(f"Measured on {found.measured_rows} held-out rows; less bits a byte is better for any tokenizer.")
    if not all(one.ahead.fits for one in found.models):
        notes.append("!: more memory than can be had now")
    if not all(one.ahead.exact for one in found.models):
        notes.append("~: worked out from the shapes; a quick run is 60 steps of LoRA")
    return notes


def _line(one: Suited) -> list[str]:
    split, knows, ahead = one.split, one.knows, one.ahead
    about = "" if ahead.exact else "~"
    gated = " (gated)" if one.gated else ""
    after = knows.probed_bits_per_byte if knows else None
    languages = one.languages
    return [
        one.name + (" (base)" if one.kind == "base" else ""),
        one.origin or "",
        f"{one.parameters:,} M" if one.parameters else "",
        f"{one.context:,}" if one.context else "",
        f"{about}{ahead.memory_bytes / 1e9:.1f} GB{'' if ahead.fits else ' !'}" if ahead.memory_bytes else "",
        f"{about}{_short(ahead.seconds)}" if ahead.seconds else "",
        f"{split.tokens_per_row:,.0f}" if split else "",
        f"{split.share_fitting:.0%}" if split else "",
        f"{knows.bits_per_byte:.2f}" if knows else "",
        f"{after:.2f}" if after is not None else "",
        one.licence + gated,
        languages if len(languages) <= MOST_LANGUAGES else f"{languages[: MOST_LANGUAGES - 1]}…",
    ]


def _short(seconds: float) -> str:
    from tunelab.train.forecast import seconds_text

    return seconds_text(seconds)


def _unforeseen(one: Suited) -> str:
    return one.ahead.note if one.origin else ""
