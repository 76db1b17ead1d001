"""Fine-tune a language model on your own domain, on the machine you have, and see what the tuning changed.

    RunConfig ──> finetune() ──> Run (a directory) ──> compare() ──> app, notebook, command line

Names are loaded when they are first used, so that `import tunelab` stays fast and does not import torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunelab.comparison import Answer, Comparer, Comparison, Provenance, compare
    from tunelab.data import preview, read_data
    from tunelab.errors import UserError, explain
    from tunelab.evaluation import evaluate
    from tunelab.export import Exported, export_adapter, export_gguf, export_merged, import_adapter
    from tunelab.finetune import finetune, train_run
    from tunelab.ladder import Ladder, LadderConfig, climb, list_ladders
    from tunelab.models import Base, load
    from tunelab.reports import Report, read_report
    from tunelab.runs import Progress, Run, list_runs, runs_root
    from tunelab.spec import DataSpec, ModelSpec, RunConfig, Stage, TrainConfig
    from tunelab.techniques import (
        IA3,
        TECHNIQUES,
        BottleneckAdapter,
        FullFineTuning,
        LoRA,
        PrefixTuning,
        PromptTuning,
        Technique,
    )

_HOME = {
    "comparison": ("Answer", "Comparer", "Comparison", "Provenance", "compare"),
    "data": ("preview", "read_data"),
    "errors": ("UserError", "explain"),
    "evaluation": ("evaluate",),
    "export": ("Exported", "export_adapter", "export_gguf", "export_merged", "import_adapter"),
    "finetune": ("finetune", "train_run"),
    "ladder": ("Ladder", "LadderConfig", "climb", "list_ladders"),
    "models": ("Base", "load"),
    "reports": ("Report", "read_report"),
    "runs": ("Progress", "Run", "list_runs", "runs_root"),
    "spec": ("DataSpec", "ModelSpec", "RunConfig", "Stage", "TrainConfig"),
    "techniques": (
        "IA3",
        "TECHNIQUES",
        "BottleneckAdapter",
        "FullFineTuning",
        "LoRA",
        "PrefixTuning",
        "PromptTuning",
        "Technique",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "IA3",
    "TECHNIQUES",
    "Answer",
    "Base",
    "BottleneckAdapter",
    "Comparer",
    "Comparison",
    "DataSpec",
    "Exported",
    "FullFineTuning",
    "Ladder",
    "LadderConfig",
    "LoRA",
    "ModelSpec",
    "PrefixTuning",
    "Progress",
    "PromptTuning",
    "Provenance",
    "Report",
    "Run",
    "RunConfig",
    "Stage",
    "Technique",
    "TrainConfig",
    "UserError",
    "climb",
    "compare",
    "evaluate",
    "explain",
    "export_adapter",
    "export_gguf",
    "export_merged",
    "finetune",
    "import_adapter",
    "list_ladders",
    "list_runs",
    "load",
    "preview",
    "read_data",
    "read_report",
    "runs_root",
    "train_run",
]


class _Package(ModuleType):
    """A package whose module `finetune` does not hide its function `finetune`, whichever is asked for first."""

    def __setattr__(self, name: str, value: Any) -> None:
        # importing a submodule sets it on its package
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tunelab' has no attribute {name!r}")
    value = getattr(import_module(f"tunelab.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
