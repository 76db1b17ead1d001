"""Which model to begin with, in a sentence with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunelab.measure.statistics import paired_mean
from tunelab.train.forecast import seconds_text

if TYPE_CHECKING:
    from tunelab.choice.suited import Suited

FITTING = 0.9  # of the rows a model has to take whole to be recommended before one that takes more
PATIENCE = 3600.0  # seconds of a quick run that most people wait


def recommendation(here: Sequence[Suited], away: Sequence[Suited], rows: int, probe: bool) -> tuple[list[Suited], str]:
    """The models, the one to begin with first, and the sentence that says why."""
    measured = sorted((one for one in here if one.knows), key=_rank)
    others = [one for one in here if not one.knows]
    ordered = [*measured, *others, *away]
    if not here:
        return ordered, (
            "No model is on this machine yet: begin with the starter, which any machine trains "
            "(`python -m tunelab.model.starter` fetches it, 93 MB)."
        )
    more = _larger(measured[0] if measured else here[0], away)
    if not measured:
        only = f"{here[0].name} is the only one at hand" if len(here) == 1 else f"{len(here)} models are at hand"
        return ordered, f"{only}, and nothing was measured; give rows to measure on (--data FILE).{more}"
    if len(measured) == 1:
        return ordered, f"Begin with {measured[0].name}: it is the only one at hand ({_bits(measured[0])}).{more}"
    best, second = measured[:2]
    if (better := _same(best, second)) is not None:
        best = better
        ordered.remove(best)
        other = second if best is measured[0] else measured[0]
        return [best, *ordered], (
            f"Begin with {best.name}: on {rows} rows it is as good as {other.name} ({_bits(best)}, {_bits(other)}; the "
            f"difference could be chance), and it takes less{_time(best)}.{more}"
        )
    why = "after 20 steps of training it knows" if probe else "it knows"
    started = min(measured, key=lambda one: one.knows.bits_per_byte if one.knows else 0.0)
    though = f" {started.name} starts better, and learns less." if probe and started is not best else ""
    return ordered, (
        f"Begin with {best.name}: {why} your answers best of the {len(measured)} at hand ({_bits(best)}; next "
        f"{second.name}, {_bits(second)}; {rows} rows{_time(best)}).{though}{more}"
    )


def _rank(one: Suited) -> tuple[bool, float]:
    """Those that take most of the rows whole first, and of them the one that knows them best."""
    assert one.knows
    assert one.split
    bits = one.knows.probed_bits_per_byte
    return one.split.share_fitting < FITTING, one.knows.bits_per_byte if bits is None else bits


def _same(best: Suited, second: Suited) -> Suited | None:
    """The faster of two that can't be told apart by their rows; None where they can."""
    assert best.knows
    assert second.knows
    differences = [a - b for a, b in zip(best.knows.deciding, second.knows.deciding, strict=True)]
    interval = paired_mean(differences)
    if interval is not None and (interval[0] > 0 or interval[1] < 0):
        return None
    slow = float("inf")
    return min((best, second), key=lambda one: one.ahead.seconds or slow)


def _bits(one: Suited) -> str:
    assert one.knows
    probed = one.knows.probed_bits_per_byte
    after = f", {probed:.2f} after 20 steps" if probed is not None else ""
    return f"{one.knows.bits_per_byte:.2f} bits a byte{after}"


def _time(one: Suited) -> str:
    return f", {seconds_text(one.ahead.seconds)} for a quick run" if one.ahead.seconds else ""


def _larger(best: Suited, away: Sequence[Suited]) -> str:
    """A model that is not at hand, larger, and can be trained here without much patience; '' where there is none."""
    size = best.parameters or 0
    possible = [
        one
        for one in away
        if (one.parameters or 0) > size
        and one.kind == "instruct"
        and not one.gated
        and one.ahead.fits
        and one.ahead.memory_bytes
        and one.ahead.seconds
        and one.ahead.seconds < PATIENCE
    ]
    if not possible:
        return ""
    next_one = min(possible, key=lambda one: one.parameters or 0)
    assert next_one.ahead.memory_bytes
    assert next_one.ahead.seconds
    return (
        f" With a network, {next_one.name} is the next larger one: about {next_one.ahead.memory_bytes / 1e9:.1f} GB "
        f"and {seconds_text(next_one.ahead.seconds)} for a quick run here."
    )
