"""What ends an answer: what the chat template writes after one, or else the end-of-text token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunelab.data.control import is_control
from tunelab.data.template import MARKER, Template, shared_start


@dataclass(frozen=True)
class End:
    """What ends an answer: `text`, the last thing in it being the token `id`, unless that is put after the text."""

    text: str
    id: int
    rest: str  # what the template writes after the last answer, from `text` on
    appended: bool = False

    def cut(self, body: str) -> str:
        """A rendered answer up to its end; with the end, where the template writes it only between turns."""
        place = body.rfind(self.text) if self.text else -1
        return body[: place + len(self.text)] if place >= 0 else body.removesuffix(self.rest) + self.text


def find_end(tokenizer: Any, template: Template) -> End | None:
    """What ends an answer; None where neither template nor tokenizer has anything that could."""
    last, earlier = template.after_answer, template.after_earlier_answer
    eos = tokenizer.eos_token_id
    # behind the last answer some templates also end the conversation; what both begin with ends the answer
    for text in (shared_start(last, earlier), last):
        end, token_id = _ending(tokenizer, text, template.before_everything)
        if token_id is not None:
            return End(end, token_id, last)
    # a template may end an answer only where another turn follows; that turn has a beginning, which is no end
    end, token_id = _ending(tokenizer, earlier, template.before_everything)
    if token_id is not None and (token_id == eos or _ends_every_turn(end, template)):
        return End(end, token_id, last)
    return None if eos is None else End(last.rstrip(), eos, last, appended=True)


def _ends_every_turn(end: str, template: Template) -> bool:
    """Whether the user's turns end in the same way, by what begins none."""
    return template.before_answer.startswith(end) and end.strip() not in template.before_everything


def _ending(tokenizer: Any, text: str, beginning: str) -> tuple[str, int | None]:
    """Of a text that stands after an answer: all up to its first control token, with those that touch that one and
    begin no turn, and the last of them. `beginning`: what a conversation begins with."""
    stop, last = 0, None
    for token_id in tokenizer.encode(text, add_special_tokens=False):
        token = _control_token(tokenizer, token_id)
        if last is not None and not (token and text.startswith(token, stop)):
            break
        if last is not None and token and token in beginning:
            break
        if token and token in text[stop:]:
            stop, last = text.index(token, stop) + len(token), token_id
    return text[:stop], last


def _control_token(tokenizer: Any, token_id: int) -> str | None:
    """The text of a token that may end a turn; None for an ordinary one."""
    added = tokenizer.added_tokens_decoder.get(token_id)
    token = str(tokenizer.convert_ids_to_tokens(token_id) if added is None else added)
    known = added is not None or token_id in tokenizer.all_special_ids or MARKER.fullmatch(token)
    return token if known and is_control(token) else None
