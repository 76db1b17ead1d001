"""What benchmarks on files with labels share: which files, and a run on them (LoRA on the built-in model in NF4)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tunelab import DataSpec, LoRA, ModelSpec, RunConfig, Stage, TrainConfig


def add_flags(parser: argparse.ArgumentParser, rows: int) -> None:
    """Flags for the files, the steps of training and the rows that are measured."""
    parser.add_argument("--data", default="train.csv", help="rows with labels to train on")
    parser.add_argument("--heldout", default="test.csv", help="rows with labels to measure on")
    parser.add_argument("--steps", type=int, default=250, help="optimiser steps of 8 rows")
    parser.add_argument("--rows", type=int, default=rows, help=f"rows to measure on (default: {rows:,})")
    parser.add_argument("--out", type=Path, help="where runs and results go")


def config(options: argparse.Namespace, name: str | None = None, **training: Any) -> RunConfig:
    """The run that the flags describe; `training`: what is otherwise than by default."""
    settings = TrainConfig(steps=options.steps, batch_size=8, **training)
    data = DataSpec(source=options.data, heldout=options.heldout)
    return RunConfig(
        name=name,
        model=ModelSpec(repo_id="starter", quantization="nf4"),
        technique=LoRA(r=16),
        stages=(Stage(data=data, training=settings),),
    )
