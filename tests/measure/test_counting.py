"""How far a measurement is: rows of all rows, a share that never falls, and the time that the rest will take."""

from __future__ import annotations

import pytest

from tunelab.measure import counting
from tunelab.measure.counting import Count, Counting, Course, Part, Planned

LOSSES, ANSWERS, QUESTIONS = Planned("losses", 100), Planned("answers", 100), Planned("questions", 50)


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which the test lets pass."""
    now = [0.0]
    monkeypatch.setattr(counting.time, "monotonic", lambda: now[0])
    return now


def begin(course, *parts):
    course.hear(Part.made("a part", parts[0], parts[1:]))


def test_rows_are_counted_over_all_parts_and_runs(clock):
    course = Course(2)
    begin(course, LOSSES, ANSWERS)
    assert (course.rows_done, course.rows, course.parts) == (0, 400, 4)
    course.hear(Count.made("losses", 40, 100))
    assert (course.rows_done, course.rows) == (40, 400)
    course.hear("loading the tuned model")  # says nothing about rows
    assert course.rows_done == 40
    begin(course, ANSWERS)
    assert (course.rows_done, course.part, course.parts) == (100, 2, 4)
    begin(course, LOSSES, ANSWERS)
    assert (course.rows_done, course.rows, course.part, course.parts) == (200, 400, 3, 4)
    begin(course, ANSWERS)
    course.hear(Count.made("answers", 99, 100))
    assert (course.rows_done, course.rows, course.part, course.parts) == (399, 400, 4, 4)


def test_a_part_that_has_more_rows_than_was_planned_makes_no_share_fall(clock):
    course, shares = Course(1), []
    for parts in ((LOSSES, ANSWERS), (Planned("answers", 900),)):
        begin(course, *parts)
        for done in (0, 50, 100):
            course.hear(Count.made("so many", done, parts[0].rows))
            shares.append(course.share)
    assert shares == sorted(shares)
    assert course.rows == 1000


def test_the_rest_takes_as_long_as_rows_of_its_kind_took(clock):
    course = Course(1)
    begin(course, LOSSES, ANSWERS, QUESTIONS)
    assert course.seconds_left is None  # nothing was measured yet
    clock[0] = 10.0
    course.hear(Count.made("losses", 50, 100))  # 0.2 s each
    by_weight = 50 * 0.2 + 100 * 0.2 * counting.WEIGHTS["answers"] + 50 * 0.2 * counting.WEIGHTS["questions"]
    assert course.seconds_left == pytest.approx(by_weight)
    begin(course, ANSWERS, QUESTIONS)
    clock[0] = 40.0
    course.hear(Count.made("answers", 10, 100))  # 3 s each
    of_a_weight = (0.2 + 3.0 / counting.WEIGHTS["answers"]) / 2
    assert course.seconds_left == pytest.approx(90 * 3.0 + 50 * of_a_weight * counting.WEIGHTS["questions"])


def test_what_was_read_from_disk_took_no_time_and_says_nothing_about_the_rest(clock):
    course = Course(1)
    begin(course, ANSWERS)
    clock[0] = 20.0
    course.hear(Count.made("answers", 90, 100, known=80))  # 2 s each
    assert course.seconds_left == pytest.approx(20.0)


def test_it_is_said_every_few_seconds_how_many_are_done(clock):
    said = []
    count = Counting("answers", 100, said.append, known=60)
    clock[0] += 5.0
    count.add(0)
    clock[0] -= 5.0
    for _row in range(20):
        clock[0] += 1.0
        count.add(1)
    assert said[0] == "answers: 63 of 100, about 37 s left"
    assert [one.done for one in said] == list(range(63, 81, 3))
    assert {(one.of, one.known) for one in said} == {(100, 60)}
