"""Ladders in lists, and one as it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playground.english import measure as say
from playground.views.texts import moment
from tunelab import Ladder, ModelSpec
from tunelab.measure.ladder import PAGE_FILE
from tunelab.measure.markup import render
from tunelab.measure.pages import ladder_body

if TYPE_CHECKING:
    from markupsafe import Markup


def rung_choices(rungs: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and name of each rung of a ladder, for a choice."""
    spec = ModelSpec(repo_id="starter")
    return [
        (technique.title_on(spec.model_copy(update={"quantization": quantization})), name)
        for name, (technique, quantization) in rungs.items()
    ]


def ladder_choices(ladders: list[Ladder]) -> list[tuple[str, str]]:
    """Label and id of each ladder, for a dropdown."""
    return [(f"{one.config.data.title} · {one.config.steps} steps · {moment(one.id)}", one.id) for one in ladders]


def ladder_html(ladder: Ladder) -> Markup:
    """Chart and table of a ladder as it stands, and where its page lies."""
    return render(
        "playground", "ladder.html", body=ladder_body(ladder), page=say.LADDER_PAGE.format(file=ladder.path / PAGE_FILE)
    )
