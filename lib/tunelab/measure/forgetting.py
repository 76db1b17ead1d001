"""Forgetting: what tuning on one domain costs elsewhere, as the change of the loss on general instructions.

The probe is 60 instructions with answers that stand in no training set of this project. A rise of the loss per token
says that the tuned model finds ordinary answers less likely than its base did. Luo et al. 2023, "An Empirical Study of
Catastrophic Forgetting in Large Language Models During Continual Fine-tuning", measure it by benchmarks of general
ability; the loss shows the same within seconds on a small model.

These instructions are of the same kinds as the set `general`, so a run that replays that set learns their form. What a
report calls forgetting is measured on those of `probe/`, which are of other kinds, and on its questions.
"""

from __future__ import annotations

from tunelab.data import Example
from tunelab.data.builtin import general_probe
from tunelab.data.shapes import to_examples
from tunelab.spec import DataSpec


def probe() -> list[Example]:
    """The general instructions, as examples."""
    rows = general_probe()
    return to_examples(rows, DataSpec(rows=tuple(rows)), "instructions", "the general probe")[0]
