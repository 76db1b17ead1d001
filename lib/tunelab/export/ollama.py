"""A run for Ollama: a folder with its GGUF file and a Modelfile that says how the model is asked.

    chat format ──> what it writes around turns ──> Go template, checked on conversations ──> Modelfile

Ollama does not read chat templates in Jinja: it has Go's text/template. What the chat format writes between turns is
found by rendering some, so any template that writes turns one after the other can be said in Go; one that does not is
refused. Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md and template.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.data import Message, chat_format
from tunelab.data.template import ANSWERED, ASKED, ASKED_AGAIN, SYSTEM
from tunelab.errors import UserError
from tunelab.export.card import model_card
from tunelab.export.gguf_file import GgufType, export_gguf
from tunelab.export.merged import check_mergeable
from tunelab.export.targets import Exported, check_folder
from tunelab.machine.files import replacing
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.data.chat import ChatFormat

MODEL_FILE, MODELFILE = "model.gguf", "Modelfile"
QUOTES = '"""'  # around texts of several lines; a text with these can't be written
INSTEAD = "Export with --to gguf, and write a Modelfile for it by hand."
SPACES = Message("user", "  Qspaces  ")
# what the template that is written is compared on with the chat format
CONVERSATIONS: tuple[tuple[Message, ...], ...] = (
    (ASKED,),
    (SYSTEM, ASKED),
    (ASKED, ANSWERED, ASKED_AGAIN),
    (SYSTEM, ASKED, ANSWERED, ASKED_AGAIN),
    (SYSTEM, ASKED, ANSWERED, ASKED_AGAIN, Message("assistant", "Qmore"), Message("user", "Qlast")),
)


@dataclass(frozen=True)
class Pieces:
    """What stands around the contents of a conversation's turns."""

    start: str  # before the user's first words, where there is no system text
    before_system: str
    after_system: str
    before_earlier_answer: str
    after_answer: str
    before_answer: str  # that is asked for

    def written(self, turns: Sequence[Message]) -> str:
        """The conversation up to the answer, as the Go template writes it."""
        system = next((turn.content for turn in turns if turn.role == "system"), None)
        text = self.start if system is None else self.before_system + system + self.after_system
        rest = [turn for turn in turns if turn.role != "system"]
        for turn in rest:
            earlier = self.after_answer if turn.role == "assistant" else self.before_earlier_answer
            text += turn.content + (self.before_answer if turn is rest[-1] else earlier)
        return text


def export_ollama(
    run: Run, folder: str | Path, kind: GgufType = "f16", progress: Callable[[str], None] = lambda message: None
) -> Exported:
    """The new folder for `ollama create NAME -f Modelfile`: the model as GGUF, its weights in `kind`, and the Modelfile
    with its template, its system prompt and where answers end.

    Raises:
        UserError: as `export_gguf`; or the chat template can't be said in Ollama's.
    """
    from tunelab.model.load import load_tokenizer

    target = Path(folder).expanduser()
    check_folder(target)
    check_mergeable(run)
    tokenizer = load_tokenizer(run.base_spec)  # its chat format lives as long as it does
    text, more = modelfile(run, tokenizer), notes_on(tokenizer)
    with replacing(target) as temporary:
        made = export_gguf(run, temporary / MODEL_FILE, kind, progress)
        notes = (*made.notes, *more)
        (temporary / MODELFILE).write_text(text, encoding="utf-8")
        (temporary / "README.md").write_text(model_card(run, _steps(run), notes, None), encoding="utf-8")
    return Exported(target, (f"In {target}: ollama create {_name(run)} -f {MODELFILE}", *notes))


def modelfile(run: Run, tokenizer: Any) -> str:
    """The text of the run's Modelfile.

    Raises:
        UserError: its chat template or its system prompt can't be written there.
    """
    chat = chat_format(tokenizer)
    system = run.config.stages[run.progress().stage].data.system
    lines = [
        f"# Run {run.id}, made with tunelab. In this folder:",
        f"#     ollama create {_name(run)} -f {MODELFILE}",
        f"#     ollama run {_name(run)}",
        f"FROM ./{MODEL_FILE}",
        f"TEMPLATE {_quoted(go_template(pieces_of(chat)), 'chat template')}",
        *([f"SYSTEM {_quoted(system, 'system prompt')}"] if system else []),
        *(f"PARAMETER stop {_quoted(token, 'end token')}" for token in chat.end_tokens),
        "# the most likely token each time, as tunelab answers where nothing else is chosen",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    return "\n".join(lines) + "\n"


def pieces_of(chat: ChatFormat) -> Pieces:
    """What the chat format writes around turns, without the `<bos>` that a reader of the GGUF file puts first.

    Raises:
        UserError: it depends on more than the turn before and the turn after.
    """
    start, earlier, after, before = _around(chat, [ASKED, ANSWERED, ASKED_AGAIN])
    before_system, after_system, *_ = _around(chat, [SYSTEM, ASKED, ANSWERED, ASKED_AGAIN])
    found = Pieces(start, before_system, after_system, earlier, after, before)
    for turns in CONVERSATIONS:
        if found.written(turns) != _prompt(chat, turns):
            roles = ", ".join(turn.role for turn in turns)
            raise UserError(
                f"The chat template can't be said in Ollama's: what it writes for the turns {roles} does not follow "
                f"from the turns one by one. {INSTEAD}"
            )
    return found


def go_template(pieces: Pieces) -> str:
    """The pieces as a template of Go, as Ollama fills it in with `.System` and `.Messages`."""
    start = _literal(pieces.start)
    system = f"{_literal(pieces.before_system)}{{{{ .System }}}}{_literal(pieces.after_system)}"
    head = f"{{{{ if .System }}}}{system}{{{{ else }}}}{start}{{{{ end }}}}"
    earlier, before = _literal(pieces.before_earlier_answer), _literal(pieces.before_answer)
    after_user = before if earlier == before else f"{{{{ if $last }}}}{before}{{{{ else }}}}{earlier}{{{{ end }}}}"
    return (
        f"{head}{{{{ range $i, $_ := .Messages }}}}{{{{ $last := eq (len (slice $.Messages $i)) 1 }}}}"
        f'{{{{ if eq .Role "user" }}}}{{{{ .Content }}}}{after_user}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}'
        f"{{{{ if not $last }}}}{_literal(pieces.after_answer)}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
    )


def notes_on(tokenizer: Any) -> list[str]:
    """What Ollama's template does otherwise than the chat template."""
    notes = ["The Modelfile's template writes system, user and assistant turns; calls of tools are not among them."]
    if SPACES.content not in _prompt(chat_format(tokenizer), [SPACES]):
        notes.append("The chat template takes blanks around a turn away; Ollama sends them as they are written.")
    return notes


def _around(chat: ChatFormat, turns: Sequence[Message]) -> list[str]:
    """What stands before, between and after the contents of the turns."""
    rest, pieces = _prompt(chat, turns), []
    for turn in turns:
        before, found, rest = rest.partition(turn.content)
        if not found:
            raise UserError(
                f"The chat template leaves out or moves a turn of the {turn.role}, which Ollama's can't. {INSTEAD}"
            )
        pieces.append(before)
    return [*pieces, rest]


def _prompt(chat: ChatFormat, turns: Sequence[Message]) -> str:
    ((text, _learned),) = chat.prompt(list(turns), "A conversation for Ollama").rows[0]
    bos: Any = chat.tokenizer.bos_token
    return text.removeprefix(bos) if bos and chat.starts_with_bos else text


def _literal(text: str) -> str:
    """Text that a template of Go writes as it is."""
    return '{{ "{{" }}'.join(text.split("{{"))


def _quoted(text: str, what: str) -> str:
    if QUOTES in text or text.endswith('"'):
        raise UserError(f"The {what} holds {QUOTES} or ends with a quote, which a Modelfile can't say. {INSTEAD}")
    return f"{QUOTES}{text}{QUOTES}" if "\n" in text or '"' in text else f'"{text}"'


def _name(run: Run) -> str:
    """What the model may be called in Ollama: lower-case letters, digits and dashes."""
    return run.id.partition("-")[2].partition("-")[2]


def _steps(run: Run) -> str:
    return f"```sh\nollama create {_name(run)} -f {MODELFILE}\nollama run {_name(run)}\n```"
