"""Fine-tune a language model on your own domain, on the machine you have, and see what the tuning changed.

    RunConfig ──> finetune() ──> Run (a directory) ──> compare() ──> app, notebook, command line

Names are loaded when they are first used, so that `import tunelab` stays fast and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunelab.answer.columns import Column
    from tunelab.answer.comparison import Comparer, compare
    from tunelab.answer.question import Answer, Comparison, Folded, Provenance, fold_equal
    from tunelab.as_code import as_command, as_notebook, as_python
    from tunelab.chain import finetune, train_run
    from tunelab.choice import Choice, Suited, models_for
    from tunelab.config import RunConfig
    from tunelab.data import overview, preview, read_data
    from tunelab.data.checkup import examine
    from tunelab.errors import UserError, explain
    from tunelab.export import Exported, export_adapter, export_gguf, export_merged, export_ollama, import_adapter
    from tunelab.measure.card import RunCard, report
    from tunelab.measure.climb import climb
    from tunelab.measure.compared import export_comparisons
    from tunelab.measure.evaluation import evaluate
    from tunelab.measure.ladder import Ladder, LadderConfig, list_ladders
    from tunelab.measure.shown import Shown, show
    from tunelab.measure.statistics import Measured, Verdict, judge_all
    from tunelab.measure.statistics.paired import PairedFiles, paired
    from tunelab.measure.sweep import Sweep, SweepConfig, list_sweeps
    from tunelab.measure.votes import (
        Ballot,
        VoteStore,
        ballot_of,
        export_votes,
        strengths,
        voter_agreement,
        votes_to_rows,
        win_rate,
    )
    from tunelab.model.load import Base, load
    from tunelab.paces import PACES
    from tunelab.run.deleting import Deleted, delete_run, deleted_runs, empty_deleted, restore_run
    from tunelab.run.diagnosis import Diagnosis, Fix, diagnose
    from tunelab.run.handed import Handed, hand_over, list_handed
    from tunelab.run.labels import Labels
    from tunelab.run.progress import Progress
    from tunelab.run.reports import Report, read_report
    from tunelab.run.run import Run, list_runs, runs_root
    from tunelab.run.search import search_runs
    from tunelab.run.settings import Difference, again, config_diff
    from tunelab.run.trained import heldout_examples
    from tunelab.spec import DataSpec, ModelSpec, Stage, TrainConfig
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
    "answer.columns": ("Column",),
    "answer.comparison": ("Comparer", "compare"),
    "answer.question": ("Answer", "Comparison", "Folded", "Provenance", "fold_equal"),
    "as_code": ("as_command", "as_notebook", "as_python"),
    "chain": ("finetune", "train_run"),
    "choice": ("Choice", "Suited", "models_for"),
    "config": ("RunConfig",),
    "data": ("overview", "preview", "read_data"),
    "data.checkup": ("examine",),
    "errors": ("UserError", "explain"),
    "export": ("Exported", "export_adapter", "export_gguf", "export_merged", "export_ollama", "import_adapter"),
    "measure.card": ("RunCard", "report"),
    "measure.climb": ("climb",),
    "measure.compared": ("export_comparisons",),
    "measure.evaluation": ("evaluate",),
    "measure.ladder": ("Ladder", "LadderConfig", "list_ladders"),
    "measure.shown": ("Shown", "show"),
    "measure.sweep": ("Sweep", "SweepConfig", "list_sweeps"),
    "measure.statistics": ("Measured", "Verdict", "judge_all"),
    "measure.statistics.paired": ("PairedFiles", "paired"),
    "measure.votes": (
        "Ballot",
        "VoteStore",
        "ballot_of",
        "export_votes",
        "strengths",
        "voter_agreement",
        "votes_to_rows",
        "win_rate",
    ),
    "model.load": ("Base", "load"),
    "paces": ("PACES",),
    "run.deleting": ("Deleted", "delete_run", "deleted_runs", "empty_deleted", "restore_run"),
    "run.diagnosis": ("Diagnosis", "Fix", "diagnose"),
    "run.labels": ("Labels",),
    "run.handed": ("Handed", "hand_over", "list_handed"),
    "run.progress": ("Progress",),
    "run.reports": ("Report", "read_report"),
    "run.run": ("Run", "list_runs", "runs_root"),
    "run.search": ("search_runs",),
    "run.settings": ("Difference", "again", "config_diff"),
    "run.trained": ("heldout_examples",),
    "spec": ("DataSpec", "ModelSpec", "Stage", "TrainConfig"),
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
    "PACES",
    "TECHNIQUES",
    "Answer",
    "Ballot",
    "Base",
    "BottleneckAdapter",
    "Choice",
    "Column",
    "Comparer",
    "Comparison",
    "DataSpec",
    "Deleted",
    "Diagnosis",
    "Difference",
    "Exported",
    "Fix",
    "Folded",
    "FullFineTuning",
    "Handed",
    "Labels",
    "Ladder",
    "LadderConfig",
    "LoRA",
    "Measured",
    "ModelSpec",
    "PairedFiles",
    "PrefixTuning",
    "Progress",
    "PromptTuning",
    "Provenance",
    "Report",
    "Run",
    "RunCard",
    "RunConfig",
    "Shown",
    "Stage",
    "Suited",
    "Sweep",
    "SweepConfig",
    "Technique",
    "TrainConfig",
    "UserError",
    "Verdict",
    "VoteStore",
    "again",
    "as_command",
    "as_notebook",
    "as_python",
    "ballot_of",
    "climb",
    "compare",
    "config_diff",
    "delete_run",
    "deleted_runs",
    "diagnose",
    "empty_deleted",
    "evaluate",
    "examine",
    "explain",
    "export_adapter",
    "export_comparisons",
    "export_gguf",
    "export_merged",
    "export_ollama",
    "export_votes",
    "finetune",
    "fold_equal",
    "hand_over",
    "heldout_examples",
    "import_adapter",
    "judge_all",
    "list_handed",
    "list_ladders",
    "list_runs",
    "list_sweeps",
    "load",
    "models_for",
    "overview",
    "paired",
    "preview",
    "read_data",
    "read_report",
    "report",
    "restore_run",
    "runs_root",
    "search_runs",
    "show",
    "strengths",
    "train_run",
    "voter_agreement",
    "votes_to_rows",
    "win_rate",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tunelab' has no attribute {name!r}")
    value = getattr(import_module(f"tunelab.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
