"""Figures of what a model makes of the right answer, and of how its own answers end: sums over rows like every metric,
but not of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy

from tunelab.measure.metrics.protocol import Measure, ratio


class LossMeasure(Measure):
    """A figure of the completions' negative log-likelihood. Columns: nats, tokens, bytes."""

    def sums(self, nats: Sequence[float], tokens: Sequence[int], bytes_: Sequence[int]) -> numpy.ndarray:
        """What each row adds (rows, 3).

        nats: the sum of -log p over the row's scored tokens.
        tokens: how many are scored, the end of turn included.
        bytes_: of the completion in UTF-8.

        Raises:
            ValueError: the three are not of one length, or a row has nothing scored.
        """
        columns = numpy.array(list(zip(nats, tokens, bytes_, strict=True)), dtype=float).reshape(-1, 3)
        empty = numpy.flatnonzero(columns[:, 1] < 1)
        if len(empty):
            raise ValueError(f"row {empty[0] + 1} has no scored token")
        return columns


class LossPerToken(LossMeasure):
    """Nats per scored token, over the tokens of all rows: long rows count by their length."""

    name, title, unit, range, higher_is_better = "loss", "loss per token", "nats", (0, math.inf), False
    source = "cross-entropy, Shannon 1948, 'A Mathematical Theory of Communication'"

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        return sums[..., 0] / sums[..., 1]


class Perplexity(LossMeasure):
    """The exponential of the loss per token; infinite where that is above 709 nats."""

    name, title, unit, range, higher_is_better = "perplexity", "perplexity", "", (1, math.inf), False
    source = "Jelinek et al. 1977, 'Perplexity: a measure of the difficulty of speech recognition tasks'"

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        with numpy.errstate(over="ignore"):
            return numpy.exp(sums[..., 0] / sums[..., 1])


class BitsPerByte(LossMeasure):
    """Bits per byte of the completions, comparable between models with other tokens; infinite where no byte is."""

    name, title, unit, range, higher_is_better = "bits_per_byte", "bits per byte", "bits", (0, math.inf), False
    source = "Gao et al. 2020, 'The Pile', section 3.1"

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        return ratio(sums[..., 0] / math.log(2), sums[..., 2], 0.0)


class StopRate(Measure):
    """Share of answers that ended by themselves, before the limit on their length. Columns: ended, 1."""

    name, title, unit, range, higher_is_better = "stop_rate", "answers that ended", "%", (0, 100), True
    source = "the share of answers with an end-of-turn token"

    def sums(self, ended: Sequence[bool]) -> numpy.ndarray:
        """What each row adds (rows, 2)."""
        stopped = numpy.asarray(ended, dtype=float)
        return numpy.stack([stopped, numpy.ones_like(stopped)], axis=1)

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        return 100 * sums[..., 0] / sums[..., 1]
