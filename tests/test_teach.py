"""What a tutorial's cells answer: the hint while nothing is written, and a guess beside what was measured."""

from __future__ import annotations

import pytest

from tunelab.glossary import entry
from tunelab.teach import NotYet, filled, scored, words


def test_an_empty_cell_answers_with_its_hint():
    for nothing in (None, ...):
        with pytest.raises(NotYet, match=r"^Nothing written yet\. Begin with the last token\.$"):
            filled(nothing, "Begin with the last token.")


@pytest.mark.parametrize("written", [0, "", False, [], 3.5])
def test_what_is_written_is_passed_on(written):
    assert filled(written, "hint") is written


@pytest.mark.parametrize(
    ("guess", "measured", "unit", "said"),
    [
        (1, 0.9, "%", "guessed 1 %, measured 0.9 %: 1.11 times too high, not far"),
        (0.95, 1, "", "guessed 0.95, measured 1: right"),
        (10, 0.9, "%", "guessed 10 %, measured 0.9 %: 11.1 times too high"),
        (1000, 1221120, "numbers", "guessed 1,000 numbers, measured 1,221,120 numbers: 1,221 times too low"),
        (0, 5, "tokens", "guessed 0 tokens, measured 5 tokens: off by 5"),
        (-1, 2, "", "guessed -1, measured 2: off by 3"),
        (0, 0, "bytes", "guessed 0 bytes, measured 0 bytes: right"),
        (" Prompt", "prompt", "", "guessed  Prompt, measured prompt: right"),
        (True, False, "", "guessed True, measured False: not so"),
        (["b", "C", "a"], ["a", "c", "b"], "", "guessed b, C, a, measured a, c, b: 1 of 3 in their place"),
        (["a"], ("a", "b"), "", "guessed a, measured a, b: 1 of 2 in their place"),
    ],
)
def test_a_guess_stands_beside_what_was_measured(guess, measured, unit, said, capsys):
    scored(guess, measured, unit)
    assert capsys.readouterr().out.strip() == said


def test_nothing_is_measured_for_whom_has_not_guessed(capsys):
    with pytest.raises(NotYet, match="No guess yet"):
        scored(..., 3)
    assert capsys.readouterr().out == ""


def test_a_word_in_the_place_of_a_number_is_told():
    with pytest.raises(TypeError, match="my_guess = 'two': a number was measured"):
        scored("two", 2)


def test_a_word_in_the_place_of_an_order_is_told():
    with pytest.raises(TypeError, match="my_guess = 'LoRA': an order was measured, so write a list"):
        scored("LoRA", ["LoRA", "IA³"])


def test_a_notebook_shows_the_words_without_the_calls():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shown = []
    shell._showtraceback = lambda kind, error, lines: shown.extend(lines)
    shell.run_cell("from tunelab.teach import filled\nfilled(None, 'Use the shift.')")
    assert shown == ["Nothing written yet. Use the shift."]


def test_words_are_those_of_the_glossary():
    shown = words("loss", "LoRA")
    assert repr(shown).split("\n") == [f"loss: {entry('loss').short}", f"LoRA: {entry('LoRA').short}"]
    assert entry("loss").short in shown.html.unescape()
    with pytest.raises(KeyError, match="quux"):
        words("quux")
