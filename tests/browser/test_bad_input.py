"""What people get wrong in the browser: one clear message, never a traceback, nothing lost."""

from __future__ import annotations

import json

import pytest

from tests.browser.conftest import shot, text, upload, wait_for_text
from tests.helpers import ROWS
from tunelab import Run, list_runs


def broken_from_line_9():
    lines = [json.dumps(row) for row in ROWS * 2]
    return "\n".join([*lines[:8], *(line[:-3] for line in lines[8:])])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "\n", "empty.csv is empty"),
        ("columns.csv", "a,b\n1,2\n3,4\n", "no columns to learn from were recognised"),
        ("broken.jsonl", broken_from_line_9(), "broken.jsonl, line 9: not valid JSON"),
        ("nothing.csv", "prompt,completion\nx,\ny,\n", "row 1: there is nothing to learn from"),
    ],
)
def test_a_wrong_file_is_explained_before_and_after_start(page, app, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    upload(page, path)
    page.get_by_role("button", name="Preview rows").click()
    wait_for_text(page, "train-message", message, 180)
    assert "Traceback" not in page.content()
    shot(page, f"bad-{path.stem}")


def test_a_wrong_setting_is_named_and_the_form_keeps_what_was_written(page, app):
    page.locator("#drawer").get_by_label("Name").fill("my careful run")
    page.get_by_label("Learning rate").fill("fast")
    before = len(list_runs(app.root))
    page.get_by_role("button", name="Start training").click()
    wait_for_text(page, "train-message", "learning_rate", 180)
    assert page.locator("#drawer").get_by_label("Name").input_value() == "my careful run"
    assert len(list_runs(app.root)) == before


def test_a_hub_model_without_a_network_is_explained(page, app):
    page.get_by_label("Model", exact=True).fill("someone/some-model")
    page.get_by_label("Model", exact=True).press("Enter")
    page.get_by_role("button", name="Preview rows").click()
    wait_for_text(page, "train-message", "Hub can't be reached", 180)


def test_a_run_of_another_version_is_listed_and_hurts_nobody(page, app):
    folder = app.root / "20200101-000000-old-run-0000"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"format": 99, "config": {}}')
    page.reload()
    wait_for_text(page, "runs", "unreadable", 180)
    assert Run(folder).status == "unreadable"
    page.get_by_role("button", name="Compare", exact=True)
    assert "Traceback" not in text(page, "runs")


def test_comparing_nothing_says_what_to_choose(page, app):
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    wait_for_text(page, "compare-message", "prompt is empty|Train|choose", 180)


def test_the_preview_marks_what_is_learned(page, app, tmp_path, starter):
    path = tmp_path / "good.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    upload(page, path)
    page.get_by_role("button", name="Preview rows").click()
    wait_for_text(page, "preview-rows", "it is, and", 180)
    shot(page, "preview")
    page.get_by_text("memory: about").wait_for()
    assert marked(page, "it is, and")
    assert not marked(page, "<|im_start|>user")


def test_start_is_disabled_with_its_reason_where_nothing_is_scored_until_the_form_changes(page, app, tmp_path, starter):
    path = tmp_path / "good.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    upload(page, path)
    longest, start = page.get_by_label("Longest row (tokens)"), page.locator("#start")
    longest.fill("16")
    page.get_by_role("button", name="Preview rows").click()
    wait_for_text(page, "start-warnings", "Training can't start. Nothing is scored in any of", 180)
    assert start.is_disabled()
    longest.fill("200")
    page.wait_for_function("!document.getElementById('start').disabled")
    page.get_by_role("button", name="Preview rows").click()
    wait_for_text(page, "preview-rows", "it is, and", 180)
    assert start.is_enabled()


def marked(page, text):
    """Whether the smallest piece that holds `text` has a background of its own."""
    return page.evaluate(
        """text => {
            const pieces = [...document.querySelectorAll('#preview-rows *')].filter(e => e.textContent.includes(text));
            const piece = pieces.reduce((a, b) => b.textContent.length <= a.textContent.length ? b : a);
            const background = e => getComputedStyle(e).backgroundColor;
            return [piece, piece.parentElement].some(e => !['rgba(0, 0, 0, 0)', 'transparent'].includes(background(e))
                && e.textContent.length < 400);
        }""",
        text,
    )
