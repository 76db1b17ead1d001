"""The quick adapter: what the first visit trains."""

from __future__ import annotations

from tunelab import DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, TrainConfig


def quick_config() -> RunConfig:
    """QLoRA r16 on the starter and python-docs. It measures no forgetting on the way, to be quick; everything else is
    at its default."""
    return RunConfig(
        name="quick adapter",
        model=ModelSpec(repo_id="starter", quantization="nf4"),
        technique=LoRA(),
        stages=(Stage(data=DataSpec(source="python-docs", heldout=200), training=TrainConfig(forgetting_rows=0)),),
    )


def is_quick(run: Run) -> bool:
    """Whether the run is the quick adapter's."""
    return run.readable and run.config == quick_config()
