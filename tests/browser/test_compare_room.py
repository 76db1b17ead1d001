"""Comparing in a real browser: columns, a conversation, differences, tokens, a set of prompts, votes by keys."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PATIENCE, shot, text, visit, wait_for_text, wait_for_words
from tests.train.test_loop import config
from tunelab import DataSpec, Stage, VoteStore, finetune
from tunelab.run.deleting import delete_run

HOSTILE = (
    "<img src=http://elsewhere.invalid/x onerror=alert(1)> ![a](http://elsewhere.invalid/y) $x$ ${alert(2)} {{value}}"
)
ENDED = "ended by itself|cut at the length"


@pytest.fixture(scope="module")
def runs(app, tiny):
    """Two runs on a tiny model."""
    made = [config(tiny, steps=3), config(tiny, steps=4, seed=1)]
    return [finetune(one.model_copy(update={"name": f"tiny {n}"}), root=app.root) for n, one in enumerate(made, 1)]


@pytest.fixture
def room(runs, blank, app):
    """The page in the room, with the second run chosen; nothing outside is asked, and no dialog is opened."""
    page = blank
    page.set_default_timeout(20_000 * PATIENCE)
    asked, dialogs = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    visit(page, f"{app.url}/?run={runs[1].id}")
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelector('#who-1 input')?.value.startsWith('tiny 2')")
    yield page
    assert not dialogs
    assert not [url for url in asked if "elsewhere" in url]


def ask(page, prompt, columns=2):
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#prompt textarea").press("Enter")
    answered(page, columns)


def letters(text):
    """What is left of a text when a browser has shown it: a tiny model writes control characters, too."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


def answered(page, columns=2):
    page.wait_for_function(f"document.querySelectorAll('#columns .copy').length == {columns}")
    for column in range(columns):
        wait_for_text(page, f"provenance-{column}", ENDED, 60)


def test_three_columns_answer_and_differences_are_marked(room, runs):
    room.get_by_role("button", name="+ Column").click()
    room.wait_for_function("document.querySelector('#who-2 input')?.value.startsWith('tiny 1')")
    room.locator("#more-2 > button, #more-2 .label-wrap").first.click()
    room.get_by_label("number input for Strength").last.fill("0.5")
    room.get_by_label("number input for Strength").last.press("Tab")
    ask(room, "say red", 3)
    wait_for_words(room, "provenance-0", "adapter off")
    wait_for_words(room, "provenance-1", runs[1].id)
    wait_for_words(room, "provenance-2", f"{runs[0].id} on × 0.5")
    base, tuned = (room.locator(f"#answer-{n} .last").inner_text() for n in (0, 1))
    assert base != tuned
    room.get_by_label("differences", exact=True).check()
    room.locator("#answer-1 ins").first.wait_for()
    assert room.locator("#answer-1 del").count()
    assert not room.locator("#answer-0 ins, #answer-0 del").count()
    shot(room, "compare-three")
    room.locator("#more-1 > button, #more-1 .label-wrap").first.click()
    room.locator("#remove-1").click()
    room.wait_for_function("document.querySelector('#who-1 input').value.startsWith('tiny 1')")
    expect(room.locator("#who-2")).to_be_hidden()


def test_a_conversation_goes_on_in_every_column_until_a_new_one_begins(room):
    ask(room, HOSTILE)
    first = [room.locator(f"#answer-{n} .last").inner_text() for n in (0, 1)]
    room.locator("#follow textarea").fill(f"And now? {HOSTILE}")
    room.locator("#follow textarea").press("Enter")
    wait_for_text(room, "provenance-1", "1 earlier turn", 60)
    answered(room)
    for column in (0, 1):
        asked = room.locator(f"#answer-{column} .asked").all_inner_texts()
        assert asked == [HOSTILE, f"And now? {HOSTILE}"]
        assert room.locator(f"#answer-{column} .answered").first.inner_text() == first[column]
    expect(room.locator("#follow textarea")).to_have_value("")
    assert not room.locator("#columns img").count()
    shot(room, "conversation")
    room.get_by_role("button", name="New conversation").click()
    wait_for_text(room, "answer-0", "^Its answer appears here", 20)
    expect(room.locator("#follow")).to_be_hidden()
    ask(room, "say red")
    assert "earlier turn" not in text(room, "provenance-1")


def test_columns_that_changed_begin_a_new_conversation(room):
    ask(room, "say red")
    room.get_by_role("button", name="+ Column").click()
    room.locator("#who-2").wait_for()
    room.locator("#follow textarea").fill("and now?")
    room.get_by_role("button", name="Send").click()
    wait_for_text(room, "compare-message", "Press Compare to begin a new one", 20)
    expect(room.locator("#follow textarea")).to_have_value("and now?")


@pytest.fixture
def with_kept_steps(app, tiny):
    """A run of other rows, whose state at each evaluation was kept."""
    rows = [{"prompt": f"count {n}", "completion": f"{n} it is"} for n in range(24)]
    first = config(tiny, steps=4, keep_adapters=True)
    other = first.model_copy(
        update={"stages": (Stage(data=DataSpec(rows=rows, heldout=4), training=first.stages[0].training),)}
    )
    return finetune(other.model_copy(update={"name": "counting"}), root=app.root)


def choose(page, column, run):
    page.locator(f"#who-{column} input").click()
    page.get_by_role("option", name=re.compile(f"^{run}")).first.click()


def test_what_was_chosen_of_a_run_does_not_stop_those_that_come_after_it(room, app, tiny, with_kept_steps):
    """Gradio refuses every press that sends a choice that is not in its list any more."""
    finetune(config(tiny, steps=2).model_copy(update={"name": "plain"}), root=app.root)
    choose(room, 1, "plain")  # the list has changed for the last time then
    choose(room, 1, "counting")
    room.locator("#more-1 > button, #more-1 .label-wrap").first.click()
    room.locator("#columns .answering").nth(1).locator(".if-at input").click()
    room.get_by_role("option", name="as it was at step 3").click()
    room.locator("#examples input").click()
    room.get_by_role("option", name=re.compile("^count")).first.click()
    choose(room, 1, "plain")
    room.locator("#prompt textarea").press_sequentially("?")
    ask(room, "say red")
    assert "@" not in text(room, "provenance-1")
    assert not room.locator("[data-testid=toast-body]").count()


def test_a_press_on_a_list_that_has_just_changed_takes_nothing(room, app, tiny):
    field = room.locator("#who-1 input")
    before = field.input_value()
    field.click()
    entry = room.get_by_role("option").nth(1)
    entry.hover()
    finetune(config(tiny, steps=2).model_copy(update={"name": "arrived"}), root=app.root)
    expect(entry).to_have_attribute("aria-label", re.compile("^arrived"))
    for taken in (before, entry.get_attribute("aria-label")):
        room.mouse.down()
        room.mouse.up()
        room.wait_for_timeout(600)
        expect(field).to_have_value(taken)
    expect(entry).to_be_hidden()


def test_a_run_that_goes_takes_its_own_column_along_and_no_other(with_kept_steps, room, runs, app):
    room.get_by_role("button", name="+ Column").click()
    room.wait_for_function("document.querySelector('#who-2 input')?.value.startsWith('counting')")
    room.locator("#more-1 > button, #more-1 .label-wrap").first.click()
    strength = room.locator("#strength-1 input[type=number]")
    strength.fill("0.5")
    strength.press("Tab")
    delete_run(with_kept_steps)
    expect(room.locator("#who-2")).to_be_hidden()
    assert room.locator("#who-1 input").input_value().startswith("tiny 2")
    expect(strength).to_have_value("0.5")
    ask(room, "say red")
    wait_for_words(room, "provenance-1", f"{runs[1].id} on × 0.5")


def test_a_run_that_comes_while_a_page_is_opened_can_be_chosen(runs, blank, app, tiny):
    page, held, is_opening = blank, [], True
    page.route("**/live?*", lambda route: held.append(route) if is_opening else route.continue_())
    visit(page, app.url)
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelector('#who-1 input')?.value")
    page.wait_for_timeout(2000)  # nothing is on its way any more
    assert held
    page.locator("#who-1 input").click()
    finetune(config(tiny, steps=2).model_copy(update={"name": "early"}), root=app.root)
    page.wait_for_timeout(1000)
    expect(page.get_by_role("option", name=re.compile("^early"))).to_be_hidden()
    is_opening = False
    for route in held:
        route.continue_()
    page.get_by_role("option", name=re.compile("^early")).wait_for()


# what the page does by itself: a run came or went, another run is chosen
MOVES = {
    "refreshed": "() => document.querySelector('#refresh').click()",
    "another run": """id => {
        const box = document.querySelector('#choose-run textarea');
        box.value = `${id} late`;
        box.dispatchEvent(new Event('input', { bubbles: true }));
    }""",
}


@pytest.mark.parametrize("move", MOVES)
def test_what_was_chosen_stays_when_an_older_look_at_the_cards_is_answered_late(with_kept_steps, room, runs, move):
    late, held_back = [], True

    def answer(route):
        of_cards = len(route.request.post_data_json["data"]) > 24
        late.append(route) if of_cards and held_back else route.continue_()

    room.route("**/run/predict*", answer)
    room.evaluate(MOVES[move], runs[0].id)
    while not late:
        room.wait_for_timeout(50)
    choose(room, 1, "counting")
    room.get_by_role("button", name="+ Column").click()
    room.wait_for_timeout(500)
    held_back = False
    for held in reversed(late):  # the newest first
        held.continue_()
        room.wait_for_timeout(500)
    room.locator("#more-1 > button, #more-1 .label-wrap").first.click()
    expect(room.locator("#columns .answering").nth(1).locator(".if-at input")).to_be_visible()
    expect(room.locator("#who-2")).to_be_visible()
    with room.expect_response("**/run/predict*"):
        room.evaluate("document.querySelector('#refresh').click()")
    room.wait_for_timeout(500)
    assert room.locator("#who-1 input").input_value().startswith("counting")


def test_what_is_offered_is_taken_where_the_cards_hold_what_it_was_made_for(room):
    base, run, other = (["" if who is None else who, "", "trained", "", 0, 1] for who in (None, "a", "b"))
    offer = json.dumps({"before": [base, run], "after": [base, other], "laid": "new"})
    lay = "([offer, count, fields]) => window.playgroundCards.lay(offer, count, ...fields) ?? null"

    def laid(count, *cards):
        return room.evaluate(lay, [offer, str(count), [value for card in cards for value in card]])

    taken = laid(2, base, run, base, base)
    assert taken[:2] == ["new", "2"]
    assert [place for place, value in enumerate(taken[2:]) if value is not None] == [len(base)]
    assert taken[2 + len(base)] == "b"
    assert laid(2, base, other, base, base) is None
    assert laid(2, base, [*run[:-1], 0.5], base, base) is None
    assert laid(3, base, run, run, base) is None


def test_the_tokens_of_an_answer_are_read_by_both(room):
    ask(room, "say red")
    room.get_by_text("How likely each model finds an answer").click()
    room.get_by_role("button", name="Read it").click()
    wait_for_text(room, "token-view", r"the base gives it −[\d.]+ nats, tiny 2 −[\d.]+", 120)
    assert room.locator("#token-view .token[title*='change']").count() > 2
    shot(room, "tokens")


def test_a_set_of_prompts_is_answered_told_and_exported(room):
    long = "x" * 3000
    room.get_by_text("A set of prompts", exact=True).click()
    room.locator("#set-prompts textarea").fill(f"say red\n{HOSTILE}\n{long}\nsay blue\nsay red")
    room.get_by_role("button", name="Answer them all").click()
    wait_for_text(room, "set-message", r"4 of 4 answered.*1 prompt was there already", 120)
    rows = room.locator("#set-table tbody tr")
    expect(rows).to_have_count(4)
    assert rows.nth(1).locator("td").nth(1).inner_text() == HOSTILE
    assert "positions" in rows.nth(2).inner_text()
    for name in ("answers.csv", "answers.jsonl", "llm-comparator.json"):
        room.locator("#set-files").get_by_text(re.compile(name.partition(".")[0])).first.wait_for()
    with room.expect_download() as download:
        room.locator("#set-files a[download]").first.click()
    assert "say blue" in download.value.path().read_text(encoding="utf-8-sig")
    room.get_by_label("Only where they differ").check()
    wait_for_text(room, "set-table", "answers differ on", 20)
    shot(room, "prompt-set")


def test_votes_are_blind_and_given_by_keys(room, app):
    ask(room, "say blue")
    answers = {room.locator(f"#answer-{n} .last").inner_text() for n in (0, 1)}
    room.get_by_text("Blind vote", exact=True).click()
    room.get_by_role("button", name="Put these answers to the vote").click()
    room.locator("#vote-1").wait_for()
    sides = room.locator("#ballot .answered").all_inner_texts()
    assert set(map(letters, sides)) == set(map(letters, answers))
    assert letters(sides[0]) != letters(sides[1])
    assert "tiny" not in text(room, "ballot")
    shot(room, "ballot")
    room.locator("#follow textarea").focus()
    room.keyboard.press("1")  # somebody writes: that is no vote
    assert not VoteStore(app.root).votes()
    room.locator("#ballot").click()
    room.keyboard.press("1")
    wait_for_text(room, "vote-message", "Your vote is kept", 20)
    room.locator("#reason").get_by_text("clearer").click()
    wait_for_text(room, "vote-message", "The reason is kept", 20)
    (vote,) = VoteStore(app.root).votes()
    assert letters(vote.winner.text) == letters(sides[0])
    assert vote.reason == "clearer"
    assert re.search(r"\d+ % interval|95 % interval|[Nn]ot enough evidence", text(room, "rates"))
    shot(room, "voted")


def test_two_browsers_do_not_see_each_others_prompts(room, browser, app):
    ask(room, "say my secret")
    other = browser.new_context().new_page()
    other.goto(app.url)
    other.get_by_role("tab", name="Compare").click()
    other.locator("#who-1").wait_for()
    assert "my secret" not in other.content()
    other.context.close()


def test_the_room_fits_a_phone_and_the_dark(room):
    ask(room, "say red")
    for width in (390, 1280):
        room.set_viewport_size({"width": width, "height": 844})
        shot(room, f"compare-room-{width}")
        assert room.evaluate("document.documentElement.scrollWidth") <= width
