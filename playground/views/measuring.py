"""How far a measurement is, and series of runs as they stand: parts of a page that grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from playground.english import measure as say
from playground.views.ladders import ladder_html
from playground.views.texts import without_flags
from tunelab import Ladder, Run
from tunelab.measure.counting import duration as about
from tunelab.measure.markup import render
from tunelab.measure.measurement import Measurement, Standing

if TYPE_CHECKING:
    from markupsafe import Markup

    from playground.jobs import Jobs


def measuring_html(jobs: Jobs, run: Run | None) -> Markup:
    """How far the run's measurement is; nothing where it is done or nobody asked."""
    standing = Measurement(run).standing() if run else None
    if standing is None or standing.state == "done":
        standing = None
    message = without_flags(standing.message) if standing else ""
    far = _far(standing) if standing else ""
    return render("playground", "measuring.html", standing=standing, message=message, far=far, say=say)


def _far(standing: Standing) -> str:
    words = say.PART if standing.seconds_left is None else say.PART_LEFT
    return words.format(
        part=standing.part,
        parts=standing.parts,
        done=f"{standing.rows_done:,}",
        rows=f"{standing.rows:,}",
        left=about(standing.seconds_left or 0.0),
    )


def series_html(jobs: Jobs, run: Run | None, asked: Sequence[str]) -> Markup:
    """A ladder or a sweep as it stands; its id is what is asked for."""
    series = jobs.series(asked[0])
    if isinstance(series, Ladder):
        return ladder_html(series)
    return render("playground", "sweep.html", rungs=series.rungs() if series else ())
