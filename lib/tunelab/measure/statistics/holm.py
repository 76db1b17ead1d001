"""The more is judged at once, the more looks changed by luck: Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many are judged at once, in the order given: below α, a difference counts, and the
    chance that any counts wrongly stays below α.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    steps = holm_steps(p_values)
    for index in sorted(range(len(p_values)), key=lambda index: -steps[index]):
        largest = max(largest, min(1.0, steps[index] * p_values[index]))
        corrected[index] = largest
    return corrected


def holm_steps(p_values: Sequence[float]) -> list[int]:
    """By how much each p-value is multiplied: the smallest by how many there are, the largest by 1."""
    steps = [0] * len(p_values)
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        steps[index] = len(p_values) - place
    return steps
