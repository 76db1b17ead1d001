"""The tables of TEACHING.md, read from the notebooks: how long each computes, how much there is to read and to do in
it, and when which one begins on a half day and on a full day.

    python -m notebooks.timetable      prints them, and writes them into TEACHING.md

Minutes of computing are measured: they stand in a notebook's first cell, where `make notebooks` has written them. How
long people take is an assumption, the constants below: one line of TEACHING.md says them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from notebooks.generate import FOLDER, is_check, read

GUIDE = FOLDER.parent / "TEACHING.md"
# of people; nobody has measured them
WORDS_A_MINUTE, LINES_A_MINUTE = 150, 15
GUESS, EXERCISE, QUESTION = 1, 6, 2  # minutes of each
MEASURED = re.compile(r"^\*\*Time\.\*\* (\d+) (seconds|minutes) of computing", re.M)
BEGINNING = 9 * 60  # minutes of the day
TALK, BREAK, LUNCH, CLOSING = 10, 15, 60, 15
# what is taught, in this order: the beginning of a notebook's name, or what stands between two of them
HALF_DAY = ("welcome", "00", "01", "break", "06", "09", "closing")
FULL_DAY = ("welcome", "00", "01", "break", "03", "05", "lunch", "06", "break", "09", "closing")
BETWEEN = {
    "welcome": (TALK, "Welcome; everybody opens the first notebook and runs its first cell"),
    "break": (BREAK, "Break"),
    "lunch": (LUNCH, "Lunch"),
    "closing": (CLOSING, "Closing: questions for discussion"),
}


@dataclass(frozen=True)
class Lesson:
    """A notebook as a teacher plans it."""

    name: str
    title: str
    computing: str  # '5 minutes'; empty where it has not been measured
    words: int
    lines: int  # of code that is read
    guesses: int
    exercises: int
    questions: int

    @property
    def computing_minutes(self) -> float:
        """What was measured, in minutes; 0 where nothing was."""
        number, _, unit = self.computing.partition(" ")
        return int(number or 0) / (60 if unit == "seconds" else 1)

    @property
    def minutes(self) -> int:
        """For a learner, computing and people together, in steps of five, never less."""
        reading = self.words / WORDS_A_MINUTE + self.lines / LINES_A_MINUTE
        doing = GUESS * self.guesses + EXERCISE * self.exercises + QUESTION * self.questions
        return 5 * -int(-(self.computing_minutes + reading + doing) // 5)


def lesson(path: Path) -> Lesson:
    """What there is to say about a notebook as a learner opens it."""
    notebook = read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    questions = [text for text in texts if text.startswith("## Questions")]
    return Lesson(
        name=path.stem,
        title=texts[0].partition("\n")[0].removeprefix("# "),
        computing=computing(notebook),
        words=sum(len(text.split()) for text in texts),
        lines=sum(bool(line.strip()) for cell in code for line in cell.source.split("\n")),
        guesses=sum("my_guess = ..." in cell.source for cell in code),
        exercises=sum(map(is_check, code)),
        questions=sum(len(re.findall(r"^\d+\. ", text, re.M)) for text in questions),
    )


def computing(notebook: NotebookNode) -> str:
    """How long it computes, as its first cell says it; empty where nobody has measured it yet."""
    found = MEASURED.search(notebook.cells[0].source)
    return f"{found[1]} {found[2]}" if found else ""


def lessons(folder: Path = FOLDER) -> list[Lesson]:
    """Every notebook of the tutorial, in the order in which it is read."""
    return [lesson(path) for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))]


def overview(every: Sequence[Lesson]) -> str:
    """A line for each notebook, and their sum."""
    lines = [
        "| notebook | computing | predictions | exercises | questions | plan for it |",
        "|---|---|---|---|---|---|",
    ]
    for one in every:
        link = f"[{one.name}](notebooks/{one.name}.ipynb)"
        counts = f"{one.guesses} | {one.exercises} | {one.questions}"
        lines.append(f"| {link}: {one.title} | {one.computing or 'not measured'} | {counts} | {one.minutes} minutes |")
    total = -int(-sum(one.computing_minutes for one in every) // 1)
    measured = f"{total} minutes" + ("" if all(one.computing for one in every) else ", as far as measured")
    lines.append(f"| all | {measured} | | | | {_hours(sum(one.minutes for one in every))} |")
    return "\n".join(lines)


def plan(every: Sequence[Lesson], day: Sequence[str]) -> str:
    """What begins when.

    Raises:
        StopIteration: there is no such notebook.
    """
    clock, lines = BEGINNING, ["| from | minutes | what |", "|---|---|---|"]
    for part in day:
        minutes, words = BETWEEN.get(part) or _taught(every, part)
        lines.append(f"| {_time(clock)} | {minutes} | {words} |")
        clock += minutes
    return "\n".join([*lines, f"| {_time(clock)} | | End, {_hours(clock - BEGINNING)} after the beginning |"])


def _taught(every: Sequence[Lesson], number: str) -> tuple[int, str]:
    one = next(one for one in every if one.name.startswith(number))
    return one.minutes, f"[{one.name}](notebooks/{one.name}.ipynb)"


def _time(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _hours(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60:02} min"


def assumed() -> str:
    """How long people are taken to need, in a sentence."""
    return (
        f"*Plan for it* is computing plus people: {WORDS_A_MINUTE} words and {LINES_A_MINUTE} lines of code a minute, "
        f"{GUESS} minute for a prediction, {EXERCISE} for an exercise, {QUESTION} for a question, rounded up to five "
        "minutes. Computing was measured; the minutes of people are an assumption, which your group will correct."
    )


def tables(every: Sequence[Lesson]) -> dict[str, str]:
    """What stands in TEACHING.md between `<!-- NAME -->` and `<!-- end of NAME -->`."""
    return {
        "notebooks": f"{overview(every)}\n\n{assumed()}",
        "half day": plan(every, HALF_DAY),
        "full day": plan(every, FULL_DAY),
    }


def with_tables(text: str, every: Sequence[Lesson]) -> str:
    """The guide with its tables made anew.

    Raises:
        ValueError: it has no place for one of them.
    """
    for name, table in tables(every).items():
        first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, found, rest = text.partition(first)
        _old, found_last, tail = rest.partition(last)
        if not (found and found_last):
            raise ValueError(f"no place for the table {name!r}: {first!r} and {last!r} are needed")
        text = f"{head}{first}\n\n{table}\n\n{last}{tail}"
    return text


def write() -> None:
    """Make the tables of the guide anew."""
    GUIDE.write_text(with_tables(GUIDE.read_text(encoding="utf-8"), lessons()), encoding="utf-8")


def main() -> None:
    write()
    for name, table in tables(lessons()).items():
        print(f"{name}\n\n{table}\n")


if __name__ == "__main__":
    main()
