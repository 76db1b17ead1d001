"""The tutorial: what a learner opens is made from its solution, a check says what is missing, every solution runs."""

from __future__ import annotations

import ast
import json
import re

import pytest
from nbclient import NotebookClient

from notebooks.depends import depending
from notebooks.generate import checks, copy_of, in_order, learners_copy, read, solutions, text_of
from notebooks.markers import MarkerError, is_marked, marked_lines, stripped
from notebooks.run import minutes, parameters, problems, small, with_minutes

SOLUTIONS = solutions()
MOST_LINES, MOST_IN_CELL = 300, 20

each = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lines_of(source):
    return [line for line in source.split("\n") if line.strip()]


@each
def test_a_learners_copy_is_what_generation_gives(path):
    solution = in_order(read(path))
    assert path.read_text(encoding="utf-8") == text_of(solution)
    assert copy_of(path).read_text(encoding="utf-8") == text_of(learners_copy(solution))


@each
def test_its_outputs_are_of_one_run_and_tell_nothing_of_the_machine(path):
    solution = read(path)
    assert [cell.execution_count for cell in code(solution)] == list(range(1, len(code(solution)) + 1))
    assert list(problems(solution)) == []
    assert with_minutes(read(path)).cells[0].source == solution.cells[0].source


@each
def test_of_this_project_it_uses_the_library_alone(path):
    trees = [ast.parse(cell.source) for cell in code(read(path))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not {name.partition(".")[0] for name in modules} & {"playground", "notebooks", "tests", "benchmarks"}


@each
def test_it_is_short(path):
    cells = [lines_of(cell.source) for cell in code(read(path))]
    assert sum(map(len, cells)) <= MOST_LINES
    assert max(map(len, cells)) <= MOST_IN_CELL


@each
def test_it_begins_with_its_aim_its_needs_and_its_time(path):
    first = read(path).cells[0].source
    for words in ("**Aim.**", "**You need**", "**Time.**"):
        assert words in first


@each
def test_a_learner_guesses_writes_and_answers(path):
    notebook = read(path)
    guesses = [cell for cell in code(notebook) if "my_guess = ..." in cell.source]
    assert len(guesses) >= 2
    assert sum(cell.source.count("scored(my_guess") for cell in code(notebook)) == len(guesses)
    found = checks(notebook)
    assert len(found) >= 2
    assert all(written for _check, written in found)
    (asked,) = (cell.source for cell in notebook.cells if cell.source.startswith("## Questions"))
    answers = re.findall(r"^\d+\. .*?\n\n?<!-- BEGIN SOLUTION -->\n(.+?)<!-- END SOLUTION -->", asked, re.M | re.S)
    assert len(answers) == len(re.findall(r"^\d+\. ", asked, re.M)) >= 3


@each
def test_no_guess_is_answered_before_it_is_made(path):
    """Between a guess and its score the learner's copy shows nothing."""
    waiting = False
    for cell in code(learners_copy(in_order(read(path)))):
        waiting = waiting or "my_guess = ..." in cell.source
        assert not (waiting and cell.outputs)
        waiting = waiting and "scored(my_guess" not in cell.source


@each
def test_a_check_says_what_is_wrong(path):
    for check, _written in checks(read(path)):
        asserts = [node for node in ast.walk(ast.parse(check.source)) if isinstance(node, ast.Assert)]
        assert asserts, check.id
        assert all(node.msg is not None for node in asserts), check.id


@each
def test_it_runs_on_small_sizes_and_its_checks_fail_with_their_hints_while_nothing_is_written(path, starter, tmp_path):
    """Only the cell tagged `parameters` is another one. Before a check runs, it runs on what a learner starts from."""
    notebook = read(path)
    sizes = parameters(notebook)
    assert small(sizes.source) != sizes.source
    sizes.source = small(sizes.source)
    graded = {check.id: written for check, written in checks(notebook)}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    with client.setup_kernel():
        for cell in code(notebook):
            if cell.id in graded:
                _fails_while_empty(client, cell, graded[cell.id])
            run_cell(client, cell.source)


def _fails_while_empty(client, check, written):
    for cell in written:
        run_cell(client, stripped(cell.source))
    name, words = run_cell(client, check.source, fails=True)
    assert name == "NotYet", f"{check.id}: {name}: {words}"
    literals = [node.value for node in ast.walk(ast.parse(check.source)) if isinstance(node, ast.Constant)]
    hint = words.removeprefix("Nothing written yet. ")
    assert len(hint) > 20
    assert hint in literals
    for cell in written:
        run_cell(client, cell.source)


def run_cell(client, source, fails=False):
    """Runs a cell in the kernel. Of one that has to fail: the error's name and words."""
    import nbformat

    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["raises-exception"] if fails else []})
    client.nb.cells.append(cell)
    client.execute_cell(cell, len(client.nb.cells) - 1)
    errors = [(out.ename, out.evalue) for out in cell.outputs if out.output_type == "error"]
    if not fails:
        return None
    assert errors, f"passes on an empty cell:\n{source}"
    return errors[0]


OWN_FILES = {
    "labels": ({"text": "It leaks {}.", "label": "repair"}, "{'prompt': 'text', 'completion': 'label'}"),
    "conversations": (
        {"messages": [{"role": "user", "content": "It leaks {}."}, {"role": "assistant", "content": "Sorry."}]},
        "{'messages': 'messages'}",
    ),
}


@pytest.mark.parametrize("kind", OWN_FILES)
def test_the_last_notebook_reads_a_file_of_the_learners_own(kind, tmp_path, monkeypatch, capsys):
    """With a path in its parameters and other roles, every cell before the doctor runs as it stands."""
    row, roles = OWN_FILES[kind]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row).replace("{}", str(number)) + "\n" for number in range(30)))
    monkeypatch.chdir(tmp_path)
    own = {"parameters": f"\nFILE = {str(file)!r}", "roles": f"\ndef roles():\n    return {roles}"}
    names: dict[str, object] = {}
    for cell in code(read(SOLUTIONS[-1])):
        if cell.id == "guess-near":
            break
        exec(compile(cell.source + own.get(cell.id, ""), cell.id, "exec"), names)
    assert "24 rows to train on, 6 held out" in capsys.readouterr().out
    assert not (tmp_path / "own_domain" / "shelves.csv").exists()


# the tools themselves


SOLVED = """import numpy as np
def double(x):
    \"\"\"Twice as much.\"\"\"
    # add it to itself
    # BEGIN SOLUTION
    return x + x
    # END SOLUTION"""
GUESSED = """my_guess = ...  # a number
# BEGIN SOLUTION NO PROMPT
my_guess = 4
# END SOLUTION"""


def test_marked_lines_become_dots_and_a_guess_stays_open():
    learner = stripped(SOLVED)
    assert learner.endswith("    # add it to itself\n    ...")
    names = {}
    exec(learner, names)
    assert names["double"](2) is None
    assert stripped(GUESSED) == "my_guess = ...  # a number"
    assert marked_lines(SOLVED) == {6}
    assert is_marked(GUESSED)


def test_an_answer_in_words_goes_with_its_empty_lines():
    text = "1. Why?\n\n<!-- BEGIN SOLUTION -->\n*Because.*\n<!-- END SOLUTION -->\n\n2. Where?"
    assert stripped(text, "markdown") == "1. Why?\n\n2. Where?"


@pytest.mark.parametrize(
    "source",
    [
        "# BEGIN SOLUTION\nx = 1",
        "x = 1\n# END SOLUTION",
        "# BEGIN SOLUTION\n# BEGIN SOLUTION\n# END SOLUTION",
        "### BEGIN SOLUTION\nx = 1\n### END SOLUTION",
        "x = 1  # SOLUTION",
        "# BEGIN SOLUTION \n# END SOLUTION",
    ],
)
def test_a_marker_that_a_tool_would_not_see_is_refused(source):
    with pytest.raises(MarkerError):
        stripped(source)


@pytest.mark.parametrize(
    ("later", "kept"),
    [
        ("print(double(2))", False),
        ("y = double(2)\ny", False),
        ("print(np.ones(2))", True),
        ("np.save('a', double(2))\nprint(np.ones(2))", False),
        ("double = abs\nprint(double(2))", True),
        ("rows = []\nrows.append(double(2))\nprint(rows)", False),
        ("def twice():\n    return double(2)\nprint(twice())", False),
        ("print(3)", True),
        ("a = [x for x in [double(2)]]\nx = 5\nprint(x)", False),
        ("for x in [1]:\n    print(x)", True),
    ],
)
def test_outputs_that_a_learners_lines_decide_are_found(later, kept):
    assert depending([SOLVED, later]) == ({0} if kept else {0, 1})


def test_what_depends_is_followed_from_cell_to_cell():
    cells = [SOLVED, "y = double(2)", "z = [y]", "print(z)", "y = 1", "print(y)"]
    assert depending(cells) == {0, 1, 2, 3}


def test_names_of_functions_and_comprehensions_are_their_own():
    cells = [SOLVED, "a = [row for row in [double(1)]]", "for row in [1]:\n    print(row)", "print([a for a in [1]])"]
    cells += ["def same(a):\n    return a\nprint(same(3))", "print(a)"]
    assert depending(cells) == {0, 1, 5}


def test_a_quick_look_changes_the_sizes_alone():
    source = 'STEPS = 60  # small: 6\nNAME = "x"  # kept\nROWS = [1, 2]  # small: [1]'
    assert small(source) == 'STEPS = 6\nNAME = "x"  # kept\nROWS = [1]'


@pytest.mark.parametrize(
    ("seconds", "words"), [(4, "10 seconds"), (40, "40 seconds"), (91, "100 seconds"), (121, "3 minutes")]
)
def test_minutes_are_never_less_than_they_were(seconds, words):
    assert minutes(seconds) == words
