"""The processes of one training, as `torchrun` starts them: how many there are, and what they have to do alike.

What follows from looking at the machine (a request to stop, a measured precision, free memory) can come out differently
in each process, and then one would wait for another for ever. So the first one looks, and tells the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")


def count() -> int:
    """How many processes train together; 1 for one that was not started by `torchrun` or its like."""
    started_together = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return int(os.environ["WORLD_SIZE"]) if started_together else 1


def on_this_machine() -> int:
    """How many of them share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if count() > 1 else 1


def is_first() -> bool:
    """Whether this is the one that records, saves and speaks."""
    return count() == 1 or os.environ["RANK"] == "0"


def index() -> int:
    """The number of this one, counted from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def gathered(mine: list[Value]) -> list[Value]:
    """The lists of all processes, one after the other; every process has them all then. All have to come here, after
    `join`."""
    if count() == 1:
        return mine
    from accelerate.utils import gather_object

    return list(gather_object(mine))


def join(device: str) -> None:
    """Meet the others, once; `device` is that of `ModelSpec`. On GPUs each process takes one of its own."""
    if count() == 1:
        return
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    # `accelerate launch` has run each process alone without a word
    assert state.num_processes == count(), f"{state.num_processes} of {count()} processes have met"


def smallest(look: Callable[[], int]) -> int:
    """The least of what `look` gives in each process: each may have a GPU of its own. All processes have to come here,
    after `join`."""
    return min(gathered([look()]))


def agreed(look: Callable[[], Value]) -> Value:
    """What `look` gives, or raises, in the first process. All processes have to come here, after `join`."""
    if count() == 1:
        return look()
    from accelerate.utils import broadcast_object_list

    seen: list[Any] = [None, None]
    if is_first():
        try:
            seen = [look(), None]
        except Exception as problem:
            seen = [None, problem]
    value, failure = broadcast_object_list(seen)
    if failure is not None:
        raise failure
    return value
