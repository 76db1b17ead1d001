"""A report as lines for people."""

from __future__ import annotations

from tunelab.run.reports import FEWEST_ROWS, Compared, Report

OLDER_TITLES = {"exact_match": "exact match", "chrf": "chrF"}  # of reports that name metrics without one


def in_words(report: Report) -> str:
    """A report as lines for people."""
    figures = [(titled(name, figure), figure, 1) for name, figure in report.metrics.items()]
    figures += [("held-out loss", report.heldout_loss, 3), ("general loss", report.general_loss, 3)]
    width = max(len(title) for title, _figure, _digits in figures)
    main = report.metrics[report.main_metric] if report.main_metric else None
    lines = []
    for title, figure, digits in figures:
        mark = "  ← the task's metric" if figure is main else ""
        mark = "  (a rise is forgetting)" if figure is report.general_loss else mark
        lines.append(f"{title:<{width}}  {_figure(figure, digits)}{mark}")
    lines += [*ability_in_words(report), *_baselines_in_words(report), *memorised_in_words(report)]
    if safety := report.safety:
        words = safety.insulting
        lines.append(f"{safety.sentence}; insulting answers: base {words.base}, tuned {words.tuned}.")
    of = "held-out rows" if report.data is None else f"rows of {report.data}"
    lines.append(f"Verdict on {report.rows} {of}: {report.sentence or report.verdict}.")
    lines.append(
        f"95 % paired BCa intervals in brackets, each of its figure alone; {report.probe_rows} general instructions."
    )
    return "\n".join([*lines, *limits_in_words(report)])


def limits_in_words(report: Report) -> list[str]:
    """What there is to know of the rows before a figure is believed, a sentence each."""
    lines = []
    if report.by == "likelihood":
        lines.append("Answers are the labels with the highest likelihood; nothing was written.")
    if report.rows < FEWEST_ROWS:
        lines.append(f"Fewer than {FEWEST_ROWS} rows: no difference is called real. Measure more.")
    if report.too_long:
        lines.append(f"{report.too_long} rows were left out: their prompt fills all positions of the model.")
    if report.selected_on:
        lines.append(
            f"{report.selected_on} of these rows also chose which step's result was kept, so the loss is a little "
            "flattering. More held-out rows would keep the two apart."
        )
    if report.left_out:
        rows = "1 row" if report.left_out == 1 else f"{report.left_out:,} rows"
        lines.append(f"{rows} left out: the run was trained on {'it' if report.left_out == 1 else 'them'}.")
    if cut := cut_in_words(report):
        lines.append(f"{cut} --max-new-tokens with a higher number reads them to their end.")
    asked = [f"general questions: {note}" for note in (report.ability.notes if report.ability else ())]
    return [*lines, *(f"{note[0].upper()}{note[1:]}." for note in (*report.notes, *asked))]


def titled(name: str, figure: Compared) -> str:
    """A metric with its unit, as a table has it."""
    title = figure.title or OLDER_TITLES.get(name, name)
    return f"{title}, %" if figure.unit == "%" or (not figure.title and name == "exact_match") else title


def ability_in_words(report: Report) -> list[str]:
    ability = report.ability
    if ability is None:
        return []
    lost, gained = ability.lost_and_gained
    return [
        f"general questions: base {ability.before:.1f} % right, tuned {ability.after:.1f} % of {ability.questions}; "
        f"{lost} lost, {gained} gained{_p_in_words(ability.p)}"
    ]


def memorised_in_words(report: Report) -> list[str]:
    found = report.memorisation
    if found is None:
        return []
    trained, heldout = found.trained_loss, found.heldout_loss
    lines = [
        found.sentence,
        f"  loss on {found.rows} training rows {trained.base:.3f} → {trained.tuned:.3f}, on held-out rows "
        f"{heldout.base:.3f} → {heldout.tuned:.3f}: it fell by {found.gap:+.3f} nats more on what was trained",
        f"  answers with personal data of training rows: base {found.echoes.base}, tuned {found.echoes.tuned} of "
        f"{found.echoes.of}",
    ]
    if found.canaries:
        codes = found.canaries
        lines.append(f"  planted codes that came out: base {codes.base}, tuned {codes.tuned} of {codes.of}")
    return lines + [f"  {note}" for note in found.notes]


def _p_in_words(p: float | None) -> str:
    if p is None:
        return ""
    return f" (McNemar p = {p:.3f})" if p >= 0.001 else " (McNemar p < 0.001)"


def _baselines_in_words(report: Report) -> list[str]:
    """What others reach by the task's metric, and what tuned gains over them."""
    name = report.main_metric
    if name is None or not report.baselines:
        return []
    figures = [(one.name, one.metrics[name]) for one in report.baselines if name in one.metrics]
    width = max((len(who) for who, _figure in figures), default=0)
    lines = [f"Others by {titled(name, report.metrics[name])}, and what tuned gains over them:"]
    for who, figure in figures:
        change = figure.change
        gain = f"{change.value:+.1f} [{change.low:+.1f}, {change.high:+.1f}]"
        lines.append(f"  {who:<{width}}  {figure.base:5.1f}   {gain} {figure.verdict}")
    return lines


def cut_in_words(report: Report) -> str:
    """How many answers were cut, in a sentence; empty where none was."""
    cut = report.cut_answers
    if not cut.base and not cut.tuned:
        return ""
    return (
        f"Cut at {report.max_new_tokens} tokens: {cut.base} answers of the base and {cut.tuned} of the tuned model, "
        "which are scored as far as they go."
    )


def _figure(figure: Compared, digits: int) -> str:
    change = figure.change
    return (
        f"base {figure.base:.{digits}f}, tuned {figure.tuned:.{digits}f}, change {change.value:+.{digits}f} "
        f"[{change.low:+.{digits}f}, {change.high:+.{digits}f}] {figure.verdict}"
    )
