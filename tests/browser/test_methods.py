"""Techniques other than LoRA, and the method ladder, as people use them in the browser."""

from __future__ import annotations

import json

from playground.owners import KEY_FILE
from tests.browser.conftest import shot, train_on_this, upload, visit, wait_for_text
from tests.helpers import ROWS
from tests.test_chain import two_stages, weights
from tunelab import LoRA, finetune, list_ladders, list_runs


def rows_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return path


def test_a_prefix_is_trained_from_the_form_and_its_settings_reach_the_run(page, app, tiny, tmp_path):
    page.get_by_role("tab", name="Data").click()
    page.locator("#data-kind").get_by_role("radio", name="File", exact=True).check()
    upload(page, rows_file(tmp_path), "data-file")
    train_on_this(page, "rows.jsonl")
    page.get_by_text("All settings").click()
    page.get_by_label("Model", exact=True).fill(tiny)
    page.get_by_label("Model", exact=True).press("Enter")
    page.get_by_label("Prefix tuning", exact=True).check()
    page.get_by_label("Virtual tokens").first.fill("8")
    page.get_by_label("Steps", exact=True).first.fill("3")
    page.get_by_role("button", name="Start training").click()
    wait_for_text(page, "status", "finished after 3 steps", 180)
    run = list_runs(app.root)[0]
    assert run.config.technique.kind == "prefix"
    assert run.config.technique.num_virtual_tokens == 8
    page.get_by_role("tab", name="Runs").click()
    wait_for_text(page, "runs", "Prefix tuning", 30)


def test_a_run_of_two_stages_goes_back_to_the_first_and_forward_again(blank, app, tiny):
    run = finetune(two_stages(tiny, LoRA(r=4)), root=app.root)
    last = weights(run.adapter_path)
    page = blank
    key = (app.root / KEY_FILE).read_text().strip()  # made here, it belongs to whoever runs the server
    visit(page, f"{app.url}/?run={run.id}&key={key}")
    page.locator("#stage-result input").click()
    page.get_by_role("option", name="stage 1: domain text").click()
    wait_for_text(page, "run-message", "rolled back to the end of stage 1", 60)
    assert weights(run.adapter_path) == weights(run.stage_path(0))
    shot(page, "stages")
    page.locator("#stage-result input").click()
    page.get_by_role("option", name="stage 2").click()
    wait_for_text(page, "run-message", "rolled back to the end of stage 2", 60)
    assert weights(run.adapter_path) == last


def test_full_fine_tuning_takes_the_base_unquantised(page, app):
    page.get_by_label("Full fine-tuning", exact=True).check()
    page.wait_for_function("document.querySelector('[aria-label=\"Quantisation of the base\"]')?.value === 'none'")


def open_methods(page):
    page.get_by_role("tab", name="Measure").click()
    page.get_by_role("tab", name="Methods compared").click()


def test_a_ladder_runs_live_survives_a_reload_and_can_be_stopped_and_gone_on_with(page, app, tiny):
    open_methods(page)
    page.get_by_label("Base model", exact=True).fill(tiny)
    page.get_by_label("Base model", exact=True).press("Enter")
    for name in ("QLoRA", "Prefix tuning"):
        page.locator("#rungs").get_by_label(name, exact=True).uncheck()
    page.get_by_label("Steps", exact=True).last.fill("3")
    page.get_by_label("Rows", exact=True).fill("2")
    page.get_by_role("button", name="Start", exact=True).click()
    wait_for_text(page, "ladder-result", "Bottleneck adapter.*IA³", 180)
    page.reload()
    open_methods(page)
    wait_for_text(page, "ladder-result", "Base.*(than|from) the base.*(than|from) the base", 180)
    shot(page, "ladder")
    (ladder,) = list_ladders(app.root)
    assert [rung.status for rung in ladder.rungs()] == ["done", "done"]
    assert page.locator("#ladder-result svg").get_attribute("aria-label")

    page.locator("#rungs").get_by_label("QLoRA", exact=True).uncheck()
    for name in ("Bottleneck adapter", "Prefix tuning", "IA³"):
        page.locator("#rungs").get_by_label(name, exact=True).uncheck()
    page.get_by_role("button", name="Start", exact=True).click()
    wait_for_text(page, "ladder-message", "No technique is chosen", 180)
