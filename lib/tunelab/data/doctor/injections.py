"""Lines that tell a model to disregard its instructions, as prompt injections do."""

from __future__ import annotations

import re

from tunelab.data.doctor.finding import Finding, Tally, around
from tunelab.data.examples import Example

_EARLIER = r"(?:previous|prior|preceding|above|earlier|former|existing|original|foregoing|initial|system|your|safety)"
_ORDERS = r"(?:instructions?|prompts?|directions?|directives?|guidelines|guardrails|programming|system message)"
_NOT = r"(?<!n't )(?<!n’t )(?<!not )(?<!never )"
_TOLD = (
    r"(?:that\s+)?(?:you\s+(?:were|have\s+been)\s+told|(?:i|we)\s+(?:said|told\s+you)"
    r"|(?:written\s+|said\s+)?(?:above|before))"
)
# a text that holds none of the words on the left is not looked at any further
PATTERNS = tuple(
    (words, re.compile(pattern, re.IGNORECASE))
    for words, pattern in (
        (
            ("ignore", "disregard", "forget", "override", "bypass"),
            rf"{_NOT}\b(?:ignore|disregard|forget|override|bypass)\s+(?:\w+\s+){{0,3}}?{_EARLIER}\s+(?:\w+\s+){{0,2}}?"
            rf"{_ORDERS}\b",
        ),
        (
            ("ignore", "disregard", "forget"),
            rf"{_NOT}\b(?:ignore|disregard|forget)\s+(?:everything|anything|all)\s+{_TOLD}(?:\s+(?:before|above))?"
            r"\s*(?:[.,;:!]|and\b|$)",
        ),
        (
            ("prompt", "instruction", "message"),
            r"\b(?:reveal|print|show|repeat|output|leak|disclose|tell)\s+(?:me\s+|us\s+)?your\s+(?:\w+\s+){0,2}?"
            r"(?:system|hidden|initial|secret|original)\s+(?:prompt|instructions?|message)\b"
            r"|\b(?:reveal|leak|disclose|repeat)\s+(?:me\s+)?the\s+(?:system|hidden|secret)\s+(?:prompt|instructions?)\b",
        ),
        (
            ("you are now", "anything now", "dan mode", "jailbreak mode"),
            r"\byou\s+are\s+now\s+(?:(?-i:DAN)\b|in\s+developer\s+mode|jailbroken|free\s+of\s+(?:all\s+)?restrictions)"
            r"|\b(?-i:Do\s+Anything\s+Now)\b|\b(?:enable|enter|activate)\s+(?:(?-i:DAN)|jailbreak)\s+mode\b",
        ),
        (
            ("ignorier",),
            r"\bignorier\w*\s+(?:\w+\s+){0,2}?(?:vorherigen|bisherigen|obigen|vorigen|früheren)\s+(?:\w+\s+)?"
            r"(?:anweisung\w*|instruktion\w*|befehl\w*|vorgaben)",
        ),
        (
            ("instructions", "consignes", "instrucciones", "indicaciones"),
            r"\b(?:ignore[zr]?|oublie[zr]?)\s+(?:toutes\s+)?(?:les|vos|tes)\s+(?:instructions|consignes)\s+"
            r"(?:précédentes|antérieures|ci-dessus)"
            r"|\b(?:ignora|ignore|olvida|olvide)\s+(?:todas\s+)?(?:las|tus|sus)\s+(?:instrucciones|indicaciones)\s+"
            r"(?:anteriores|previas)",
        ),
        (
            ("無視", "忽略"),
            r"(?:以前|これまで|上記|前)の(?:すべての)?(?:指示|命令|プロンプト)を(?:すべて)?無視"
            r"|忽略(?:之前|以上|前面|先前)的?(?:所有|全部)?(?:的)?(?:指令|指示|提示|说明)",
        ),
    )
)


def injection_in(example: Example) -> str | None:
    """The words of a row that look like an injection, with what stands around them. System texts are instructions
    themselves and don't count."""
    said = [m.content for m in example.messages if m.role != "system"] if example.text is None else [example.text]
    for text in said:
        lowered = text.lower()
        for words, pattern in PATTERNS:
            if any(word in lowered for word in words) and (found := pattern.search(text)):
                return around(text, found.start(), found.end())
    return None


class Injections:
    def __init__(self) -> None:
        self.tally = Tally()

    def see(self, example: Example) -> None:
        if spot := injection_in(example):
            self.tally.add(example, spot)

    def findings(self) -> list[Finding]:
        return self.tally.finding(
            "injections",
            "{rows} with lines that look like prompt injection",
            "They tell a model to disregard its instructions. A model that is tuned on the answers learns to obey; "
            "leave them only where the answer refuses.",
            "medium",
            "drop-injections",
        )
