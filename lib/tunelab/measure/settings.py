"""How a run is measured: on how many rows, with what beside it, and at what length answers are cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunelab.errors import UserError, shortened, shown_name

ROWS = 100
LONGEST_ANSWER = 64
QUESTIONS, INSTRUCTIONS = 160, 60  # of the built-in probe of general ability
MOST_EXAMPLES = 32


@dataclass(frozen=True)
class Measuring:
    """The settings of a measurement.

    by: an answer is written, or is the label with the highest likelihood.
    system: a system prompt that the base is asked with as well.
    examples: so many training rows are shown to the base before the question, in a column of its own.
    questions, instructions: how many of the probe's; `probe` is a file of questions in HellaSwag's columns.
    metric: a Python file with a metric of the user's own, which becomes the task's.
    memorisation: training rows are looked at as well; `canaries` is a file of codes that were planted among them.
    safety: harmful requests are asked as well.
    """

    rows: int = ROWS
    max_new_tokens: int = LONGEST_ANSWER
    by: Literal["answer", "likelihood"] = "answer"
    system: str | None = None
    examples: int = 0
    questions: int = QUESTIONS
    instructions: int = INSTRUCTIONS
    probe: Path | None = None
    metric: Path | None = None
    memorisation: bool = False
    canaries: Path | None = None
    safety: bool = False

    @property
    def flags(self) -> dict[str, str]:
        """Those of `tunelab evaluate` that no figure of a report tells; files by their names alone."""
        files = {name: getattr(self, name) for name in ("probe", "metric", "canaries")}
        found = {name: Path(file).name for name, file in files.items() if file}
        return (
            found
            | ({"system": self.system} if self.system else {})
            | ({"examples": str(self.examples)} if self.examples else {})
        )

    @property
    def for_answers_alone(self) -> list[str]:
        """What was asked for and can't be had where nothing is answered, a sentence each."""
        asked = {
            "the metric of your own": self.metric,
            "the base with a system prompt": self.system,
            "the base with examples": self.examples,
        }
        return [f"{what} was not measured: nothing is answered here" for what, value in asked.items() if value]

    def check(self) -> None:
        """
        Raises:
            UserError: a setting is out of its range.
        """
        if self.rows < 2:
            raise UserError(f"rows = {self.rows}: at least 2 are needed to say how sure a difference is.")
        if self.by not in ("answer", "likelihood"):
            raise UserError(f"by = {shortened(self.by)}: allowed are 'answer' and 'likelihood' (for labels).")
        for name, lowest, highest in (
            ("max_new_tokens", 1, 4096),
            ("examples", 0, MOST_EXAMPLES),
            ("questions", 0, 1_000_000),
            ("instructions", 2, INSTRUCTIONS),
        ):
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise UserError(f"{name} = {value}: allowed are {lowest} to {highest:,}.")
        if self.canaries and not self.memorisation:
            raise UserError("canaries: codes are looked for with memorisation alone. Add --memorisation.")
        for name, what in (
            ("probe", "questions in HellaSwag's columns"),
            ("canaries", "rows with prompt and completion"),
        ):
            file = getattr(self, name)
            if file and not Path(file).expanduser().is_file():
                raise UserError(f"{name} = {shown_name(str(file))}: there is no such file. Give one with {what}.")
        if self.system is not None and not self.system.strip():
            raise UserError("system = '': it is empty. Write what the base shall be told, or leave it out.")
