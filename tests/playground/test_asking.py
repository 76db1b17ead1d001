"""Asking in the Compare room without a browser: what a page hears of its questions, and what is kept whatever goes
wrong; what its cards hold."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest

from playground.columns import MOST, Pick, fitting
from playground.parts import asking, columns, prompt_sets
from playground.parts.waiting import Asked, Cancels
from tests.playground.test_compare_room import said
from tests.train.test_loop import config
from tunelab import IA3, Comparison, UserError, finetune


class Room:
    """The room's handlers, without a page; `growing` is what every question is told."""

    def __init__(self, root):
        self.growing, self.page = [said("a", "b")], SimpleNamespace(session_hash="page")
        shared = SimpleNamespace(jobs=SimpleNamespace(root=root), comparer=self)
        with gr.Blocks() as page:
            cards = [columns.lay_out(number) for number in range(MOST)]
            self.editor = columns.Editor(cards, columns.hold(), gr.Button())
            laid = asking.lay_out_question(), asking.lay_out_decoding(), asking.lay_out_buttons(), gr.Markdown()
            places = [asking.lay_out_place(number) for number in range(MOST)]
            self.room = asking.Asking(*laid, self.editor, places, asking.lay_out_talk())
            asking.wire(shared, self.room)
            self.answered = prompt_sets.build(shared, self.editor, self.room.decoding)
        self.handlers = {one.name: one.fn for one in page.fns.values()}
        self.settings = [96, 0.0, 0, 1, "2", *(["", "", "trained", "", 0, 1.0] * MOST)]

    def ask(self, _columns, prompt, *, history, cancel, **_decoding):
        """As a `Comparer`."""
        if not prompt.strip():
            raise UserError("The prompt is empty.")
        return iter(self.growing)

    def batch(self, _columns, prompts, *, cancel, **_decoding):
        return iter(self.growing)

    def press(self, prompt, system=""):
        return self.handlers["ask"](self.page, prompt, "plain", system, *self.settings)

    def send(self, prompt, now, system=""):
        return self.handlers["follow"](self.page, prompt, now, "plain", system, *self.settings)

    def said(self, changes):
        """The conversation that is left after all of these."""
        return [change[self.room.talk.said] for change in changes if self.room.talk.said in change][-1]


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


def test_a_page_waits_for_its_newest_question_and_for_no_other_pages():
    cancels = Cancels()
    one, other = SimpleNamespace(session_hash="one"), SimpleNamespace(session_hash="other")
    first, second, elsewhere = Asked(), Asked(), Asked()
    cancels.begin(one, first)
    cancels.begin(other, elsewhere)
    cancels.begin(one, second)
    assert first.is_set()
    assert (first.wanted, second.wanted) == (False, True)
    cancels.over(one, first)
    assert cancels.waits(one)
    cancels.end(one)
    assert second.is_set()
    assert second.wanted  # cancelled, not replaced: what there is of it is shown
    assert not cancels.waits(one)
    assert not elsewhere.is_set()


def test_what_an_answer_is_told_of_a_run_is_text(room):
    room.growing = [said("a", "b", note="![x](http://elsewhere.invalid) <img src=x> changes nothing")]
    notes = [change[room.room.message] for change in room.press("Why?") if room.room.message in change]
    assert "changes nothing" in notes[-1]
    assert "![" not in notes[-1]
    assert "<img" not in notes[-1]


def test_a_question_that_can_not_be_asked_ends_no_other(room):
    room.growing = [said("a", "b", done=False), said("a", "b")]
    answering = room.press("Why?")
    next(answering)
    (refused,) = room.press(" ")
    assert "empty" in refused[room.room.message]["value"]
    assert refused[room.room.buttons.cancel]["interactive"]  # of the one that is answered
    assert room.said(answering).comparison == room.growing[-1]


def test_a_new_conversation_stays_empty_while_an_answer_was_on_its_way(room):
    answering = room.press("Why?")
    next(answering)
    room.handlers["begin_anew"](room.page)
    assert not list(answering)


def test_a_new_question_ends_the_conversation_before_it_also_where_it_fails(room):
    room.growing = []  # cancelled before there was an answer
    assert room.said(room.press("Why?")) is None


def test_what_is_written_next_while_an_answer_grows_is_kept(room):
    now = room.said(room.press("Why?"))
    room.growing = [Comparison("And?", None, (), False, "loading"), said("a", "b", done=False), said("a", "b")]
    changes = list(room.send("And?", now))
    cleared = [place for place, change in enumerate(changes) if room.room.talk.message in change]
    assert cleared == [2]  # when the answer begins: what was sent stands above then
    assert not [change for change in room.press("Who?") if room.room.talk.message in change]


def test_a_conversation_goes_on_with_the_columns_and_the_system_prompt_it_began_with(room):
    now = room.said(room.press("Why?", "Be brief."))
    assert room.said(room.send("And?", now, " Be brief. ")).columns == now.columns
    (refused,) = room.send("And?", now, "Be long.")
    assert "Press Compare" in refused[room.room.message]["value"]
    room.settings[4] = 3
    (refused,) = room.send("And?", now, "Be brief.")
    assert "Press Compare" in refused[room.room.message]["value"]


def sent(room, written):
    return list(room.handlers["answer"](room.page, written, None, False, True, "", *room.settings))


def test_what_was_answered_of_a_set_is_kept_whatever_goes_wrong(room, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    def growing():
        yield from [said("a", "b")] * 3
        raise UserError("The run is gone.")

    room.growing = growing()
    last = sent(room, "one\ntwo\nthree\nfour")[-1]
    assert last[room.answered] == (said("a", "b"),) * 3
    assert "The run is gone" in str(last.values())
    (refused,) = sent(room, " ")  # a press that asks nothing leaves what there is
    assert room.answered not in refused
    assert len(refused) == 1


def test_a_set_is_shown_once_for_the_answers_that_come_at_once(room, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    room.growing = [said("a", "b")] * 40
    shown = [len(change[room.answered]) for change in sent(room, "\n".join(map(str, range(40))))]
    assert shown == [0, 16, 32, 40]


# what cards hold


def test_what_a_run_does_not_have_is_not_asked_of_it_and_nothing_else_is_written_over(tiny, room, tmp_path):
    run = finetune(config(tiny, steps=1), root=tmp_path)
    weak = finetune(config(tiny, steps=1).model_copy(update={"technique": IA3()}), root=tmp_path)
    held = Pick(weak.id, "40", "own", "Be brief.", 2, 0.5)  # as a card is left when another run is chosen on it
    assert fitting(held, tmp_path) == Pick(weak.id, "", "own", "Be brief.", 2, 1.0)
    assert fitting(Pick(run.id, strength=0.5), tmp_path).strength == 0.5
    assert fitting(Pick("gone", "40", strength=0.5), tmp_path) == Pick()
    card = room.editor.cards[1]
    changes = columns.stand(room.editor, tmp_path, [Pick(), held], [Pick(), held])
    assert {field: change["value"] for field in card.fields if "value" in (change := changes.get(field, {}))} == {
        card.at: "", card.strength: 1.0,
    }  # fmt: skip


def test_what_somebody_chose_stays_where_the_run_of_another_column_is_gone(tiny, tmp_path):
    first, second = (finetune(config(tiny, steps=1, seed=seed), root=tmp_path).id for seed in (0, 1))
    begun, asked, gone = [Pick(), Pick(second)], Pick(first, words="Be brief.", system="own"), Pick("gone")

    def left(*chosen):
        return columns.still_there(chosen, begun, tmp_path)

    assert left(Pick(), asked) == [Pick(), asked]
    assert left(asked, gone, Pick()) == [asked, Pick()]
    assert left(asked, gone) == [asked, Pick()]
    assert left(Pick(system="none"), gone) == [Pick(system="none"), Pick(second)]
    assert left(gone, gone) == begun
