"""The Runs room as people use it: found, named, compared, deleted and brought back, taken along."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest
from playwright.sync_api import expect

from playground.owners import KEY_FILE
from tests.browser.conftest import PATIENCE, shot, text, upload, visit, wait_for_text, wait_for_words
from tests.train.test_loop import config
from tunelab import LoRA, Run, export_adapter, finetune, list_runs
from tunelab.run.events import Failed
from tunelab.techniques.base import WEIGHTS_FILE

HOSTILE = "<img src=x onerror=alert(1)> **b** [x](y) $z$"


@pytest.fixture(scope="module")
def runs(app, tiny):
    """Two runs of other seeds and ranks, and one that failed for want of memory."""
    one = finetune(config(tiny).model_copy(update={"name": "first"}), root=app.root)
    other = config(tiny, seed=7).model_copy(update={"name": "second", "technique": LoRA(r=8)})
    two = finetune(other, root=app.root)
    failed = Run.create(config(tiny, batch_size=16).model_copy(update={"name": "too large"}), app.root)
    failed.append(one.progress().started)
    failed.append(Failed(step=1, message="Not enough memory", cause="memory"))
    return one, two, failed


@pytest.fixture
def room(blank, app, runs):
    """The room, opened by whoever runs the server."""
    page = blank
    page.set_default_timeout(20_000 * PATIENCE)
    dialogs, outside = [], []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: outside.append(request.url) if not request.url.startswith(app.url) else None)
    visit(page, f"{app.url}/?key={(app.root / KEY_FILE).read_text().strip()}")
    page.get_by_role("tab", name="Runs", exact=True).click()
    page.locator(f"#runs [data-choose='{runs[0].id}']").wait_for()
    yield page
    assert not dialogs
    assert not [url for url in outside if not url.startswith(("data:", "blob:"))]


def notebook_of(run) -> bytes:
    """As a process of its own makes it: the tests' own has other defaults."""
    code = "import sys, tunelab; sys.stdout.write(tunelab.as_notebook(tunelab.Run.open(sys.argv[1])))"
    return subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, check=True).stdout


def choose(room, run):
    room.locator(f"#runs [data-choose='{run.id}']").click()
    room.wait_for_url(f"**?run={run.id}")
    room.wait_for_function("id => document.querySelector('#labels-of textarea')?.value === id", arg=run.id)


def test_a_run_is_named_tagged_and_found_and_what_it_is_called_stays_text(room, runs):
    one, *_ = runs
    choose(room, one)
    room.locator("#run-name input, #run-name textarea").first.fill(HOSTILE)
    room.locator("#run-tags input, #run-tags textarea").first.fill("good, <b>bold</b>")
    room.locator("#run-note textarea").fill("<script>alert(2)</script>")
    room.locator("#runs-search input, #runs-search textarea").first.focus()
    wait_for_text(room, "labels-message", "Saved", 20)
    wait_for_text(room, "runs", r"<img src=x onerror=alert\(1\)> \*\*b\*\* \[x\]\(y\) \$z\$", 20)
    assert one.labels.tags == ("good", "<b>bold</b>")
    assert one.labels.note == "<script>alert(2)</script>"
    expect(room.locator("#runs img, #runs b, #one-run img")).to_have_count(0)
    wait_for_text(room, "chosen-run", "<img src=x", 20)
    room.locator("#runs-search input, #runs-search textarea").first.press_sequentially("tag:good status:finished")
    wait_for_text(room, "runs", "1 of 3 runs fit", 20)
    assert "second" not in text(room, "runs")
    shot(room, "runs-found")
    one.label(name="first")


def test_a_name_that_is_too_long_is_told_and_another_run_keeps_its_own(room, runs):
    one, two, _failed = runs
    choose(room, one)
    field = room.locator("#run-name input, #run-name textarea").first
    field.fill("n" * 80)
    field.press("Enter")
    wait_for_text(room, "labels-message", "80 characters, 60 at most", 20)
    choose(room, two)
    expect(field).to_have_value("second")
    assert [run.name for run in (one, two)] == ["first", "second"]


def test_two_runs_that_are_picked_show_their_curves_and_what_they_differ_in(room, runs):
    one, two, _failed = runs
    for run in (one, two):
        room.get_by_label(f"Pick {run.name} to compare").focus()
        room.keyboard.press("Space")
    wait_for_text(room, "picked", "What they differ in", 20)
    chart = room.locator("#picked svg[data-values]")
    lines = json.loads(chart.get_attribute("data-values"))["lines"]
    for letter, run in (("A", one), ("B", two)):
        measured = [e.heldout_loss for e in run.progress().evaluations]
        assert [value for _step, value in lines[letter]] == [float(f"{loss:.4g}") for loss in measured]
    chart.hover(position={"x": 120, "y": 60})
    room.locator("#picked .chart-values").wait_for()
    assert "A " in room.locator("#picked .chart-values").inner_text()
    assert {"r", "seed"} <= set(room.locator("#picked table.differences tbody th").all_inner_texts())
    shot(room, "runs-picked")
    expect(room.get_by_label("Pick second to compare")).to_be_checked()
    room.get_by_role("button", name="Compare their answers").click()
    for number, run in enumerate((one, two), 1):
        named = f"document.querySelector('#who-{number} input')?.value.startsWith('{run.name} ')"
        room.wait_for_function(named, timeout=30_000 * PATIENCE)
        # what there is to set of each is that of its own run, though the room was never open before
        room.locator(f"#more-{number} > button, #more-{number} .label-wrap").first.click()
        room.locator(f"#strength-{number}").wait_for()
    expect(room.locator("#who-3")).to_be_hidden()
    room.get_by_role("tab", name="Runs", exact=True).click()
    room.get_by_role("button", name="Take second away").click()
    wait_for_text(room, "picked", "One run is picked", 20)
    expect(room.get_by_label("Pick second to compare")).not_to_be_checked()


def test_a_second_press_deletes_and_undo_brings_it_back(room, app, runs):
    _one, two, _failed = runs
    choose(room, two)
    room.locator("#delete-run").click()
    wait_for_text(room, "delete-run", r"Press again to delete .*B", 20)
    assert two.path.is_dir()
    room.locator("#delete-run").click()
    wait_for_text(room, "runs-message", r"second is deleted \(.*B\)", 20)
    assert two.id not in {run.id for run in list_runs(app.root)}
    room.locator(f"#runs [data-choose='{two.id}']").wait_for(state="detached")
    shot(room, "runs-deleted")
    room.locator("#undo-delete").click()
    wait_for_text(room, "runs-message", "second is back", 20)
    room.locator(f"#runs [data-choose='{two.id}']").wait_for()
    assert two.has_adapter


def test_a_deleted_run_is_restored_from_the_list_of_deleted_ones(room, app, runs):
    _one, two, _failed = runs
    choose(room, two)
    room.locator("#delete-run").click()
    wait_for_text(room, "delete-run", "Press again", 20)
    room.locator("#delete-run").click()
    wait_for_text(room, "runs-message", "deleted", 20)
    room.get_by_text("Deleted runs", exact=True).click()
    room.locator("#deleted").get_by_role("button", name="Restore").click()
    room.locator(f"#runs [data-choose='{two.id}']").wait_for()
    assert two.path.is_dir()


def test_a_failed_run_is_explained_and_trained_again_as_told_with_one_press(room, app, runs):
    *_, failed = runs
    choose(room, failed)
    wait_for_text(room, "about-run", "Memory ran out.*Retry with batch 8", 20)
    shot(room, "runs-failed")
    room.locator("#about-run").get_by_role("button", name="Retry with batch 8").click()
    wait_for_text(room, "runs-message", "too large is trained", 20)
    newest = list_runs(app.root)[0]
    assert newest.config.stages[0].training.batch_size == 8
    wait_for_text(room, "about-run", "finished after", 120)


def test_a_run_becomes_the_form_again_with_its_settings(room, runs):
    _one, two, _failed = runs
    choose(room, two)
    room.locator("#again").click()
    room.locator("#start").wait_for()
    room.wait_for_function("document.querySelector('#technique input:checked')?.value === 'lora'")
    room.get_by_text("All settings").click()
    drawer = room.locator("#drawer")
    expect(drawer.get_by_label("Name").first).to_have_value("second")
    expect(drawer.get_by_label("Steps", exact=True).first).to_have_value(str(two.config.stages[0].training.steps))
    expect(drawer.get_by_label("LoRA rank", exact=True).first).to_have_value("8")
    wait_for_words(room, "material", "rows in memory")


def taken(room, run, what):
    """The file that a link of the room brings."""
    with room.expect_download() as download:
        room.locator(f"#take [data-take='{what}']").click()
    assert run.id in download.value.suggested_filename
    return download.value.path()


def test_notebook_adapter_and_card_are_taken_along_as_the_library_makes_them(room, runs):
    one, *_ = runs
    choose(room, one)
    room.get_by_text("Take it along").click()
    assert taken(room, one, "notebook").read_bytes() == notebook_of(one)
    with zipfile.ZipFile(taken(room, one, "adapter")) as archive:
        assert archive.read(WEIGHTS_FILE) == (one.adapter_path / WEIGHTS_FILE).read_bytes()
    room.locator("#take").get_by_role("button", name="Make").last.click()  # the run card
    room.locator("#take [data-take='card']").wait_for(timeout=120_000)
    assert one.id in taken(room, one, "card").read_text()
    shot(room, "runs-take")
    room.get_by_text("As code").click()
    room.wait_for_function("document.querySelector('#run-command textarea').value.includes('tunelab train')")


def test_an_adapter_made_elsewhere_is_brought_in(room, app, runs, tiny, tmp_path):
    one, *_ = runs
    zipped = export_adapter(one, tmp_path / "theirs.zip").path
    room.get_by_text("Bring an adapter", exact=True).click()
    room.locator("#bring-go").click()
    wait_for_text(room, "bring-message", "No file is given", 20)
    upload(room, zipped, "bring-file")
    model = room.get_by_label("Its base", exact=True)
    model.fill(tiny)
    model.press("Enter")
    room.locator("#bring-go").click()
    wait_for_text(room, "bring-message", "theirs is here", 120)
    assert list_runs(app.root)[0].imported_from == "theirs.zip"


def test_another_session_may_look_and_is_told_why_it_may_not_change(browser, app, runs):
    _one, two, _failed = runs
    context = browser.new_context()
    page = context.new_page()
    visit(page, app.url)  # without the key
    page.get_by_role("tab", name="Runs", exact=True).click()
    choose(page, two)
    wait_for_text(page, "run-owner", "the server's", 20)
    page.locator("#delete-run").click()
    wait_for_text(page, "runs-message", "only whoever shows the server's key can change it", 20)
    page.locator("#run-tags input, #run-tags textarea").first.fill("mine")
    page.locator("#run-tags input, #run-tags textarea").first.press("Enter")
    wait_for_text(page, "labels-message", "only whoever shows the server's key can change it", 20)
    assert two.labels.tags == ()
    context.close()


def test_the_room_is_readable_on_a_phone_and_in_the_dark(room, app, runs):
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            room.set_viewport_size({"width": width, "height": 800})
            visit(room, f"{app.url}/?__theme={scheme}&run={runs[0].id}")
            room.locator("#rooms").wait_for()
            if width == 390:
                room.locator(".overflow-menu > button").first.click()
                room.locator(".overflow-dropdown button", has_text="Runs").click()
            else:
                room.get_by_role("tab", name="Runs", exact=True).click()
            room.locator("#runs [data-pick]").first.wait_for()
            wait_for_text(room, "about-run", "finished", 20)
            if width == 390:
                room.locator("#runs [data-sort=name]").click()
                room.locator("#runs th.name[aria-sort=ascending]").wait_for()
            shot(room, f"runs-{width}-{scheme}")
            assert room.evaluate("document.documentElement.scrollWidth") <= width
