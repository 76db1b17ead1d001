"""What the words of rows are: wrongly decoded text, the languages they are written in, and personal data."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

from tunelab.data.doctor.finding import Finding, Tally, counted
from tunelab.data.doctor.personal import NAMES, personal_data
from tunelab.data.examples import Example

LANGUAGES = """
ar bg bn ca cs da de el en es et fa fi fr gu he hi hr hu id it ja ko lt lv mr ms nl no pa pl pt ro ru sk sl sr sv sw ta
te th tl tr uk ur vi zh
""".split()
# languages so close that a few sentences don't tell them apart
SAME = {"ms": "id", "hr": "sr", "bs": "sr", "no": "da", "sk": "cs", "mr": "hi", "ca": "es", "gl": "es"}
LEAST_LETTERS, LEAST_SHARE, LEAST_ROWS = 40, 0.02, 3  # of a text; of the rows in another language
SURE = 0.99
MOST_READ, MOST_ROWS = 500, 5000  # characters of a text, rows: enough to tell
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+|\S+@\S+|<[^>\n]{1,80}>", re.DOTALL)
MARKS_OF_CODE, MOST_MARKS = re.compile(r"[{}()\[\]=;<>_|\\/*#+$&^~]|\d"), 0.08  # of the characters


def repaired(text: str) -> str:
    """The text as it was before it was decoded wrongly; everything else about it stays, quotes and spaces too."""
    import ftfy

    if text.isascii():
        return text
    while (mended := ftfy.fix_encoding(text)) != text:
        text = mended
    return text


def repaired_row(example: Example) -> Example:
    """The row with all its turns repaired."""
    return example.with_texts(repaired)


class Mojibake:
    """Rows that were decoded wrongly, and those in which characters were lost."""

    def __init__(self) -> None:
        self.mendable, self.lost = Tally(), Tally()

    def see(self, example: Example) -> None:
        for text in example.texts:
            if (mended := repaired(text)) != text:
                place = next((i for i, (a, b) in enumerate(zip(text, mended, strict=False)) if a != b), 0)
                self.mendable.add(
                    example, f"{text[max(0, place - 40) : place + 60]} ⟶ {mended[max(0, place - 40) :][:90]}"
                )
                return
        if text := next((text for text in example.texts if "�" in text), ""):
            self.lost.add(example, text[max(0, text.index("�") - 60) :])

    def findings(self) -> list[Finding]:
        mendable = self.mendable.finding(
            "mojibake",
            "{rows} decoded wrongly (Ã¼ for ü)",
            "The model learns to write it so. The fix turns it back.",
            "high",
            "repair-text",
        )
        return mendable + self.lost.finding(
            "lost-characters",
            "{rows} with � where a character was lost",
            "What was lost is not in the file any more: save it again from its source, as UTF-8.",
            "medium",
        )


class LanguageMix:
    """The languages of answers (of prompts, where answers are short)."""

    def __init__(self) -> None:
        self.seen = 0
        self.counts: Counter[str] = Counter()
        self.rows: dict[str, Tally] = {}

    def see(self, example: Example) -> None:
        if self.seen == MOST_ROWS:
            return
        self.seen += 1
        said = (example.answer, example.prompt) if example.text is None else (example.text,)
        language = next((found for text in said if (found := language_of(text))), None)
        if language:
            self.counts[language] += 1
            self.rows.setdefault(language, Tally()).add(example)

    def findings(self) -> list[Finding]:
        total = self.counts.total()
        others = [
            (language, count)
            for language, count in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[1:]
            if count >= max(LEAST_ROWS, LEAST_SHARE * total)
        ]
        if not others:
            return []
        main = max(sorted(self.counts), key=lambda language: self.counts[language])
        shares = ", ".join(f"{name} {count / total:.0%}" for name, count in [(main, self.counts[main]), *others])
        examples = tuple(one for name, _count in others for one in self.rows[name].examples[:2])[:5]
        return [
            Finding(
                "languages",
                f"rows are in several languages: {shares} (of {total:,} rows that are long enough to tell)",
                sum(count for _name, count in others),
                examples,
                "The model may answer in the wrong one. If it is meant to speak several, hold out and measure each; "
                "else leave the others out.",
                "low",
            )
        ]


class PersonalData:
    """Rows with personal data or secrets."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.kinds: Counter[str] = Counter()

    def see(self, example: Example) -> None:
        found = [(text, spans) for text in example.texts if (spans := personal_data(text))]
        if found:
            self.kinds.update({span.kind for _text, spans in found for span in spans})
            text, spans = found[0]
            start = max(0, spans[0].start - 50)
            self.tally.add(example, text[start : spans[0].end + 200])

    def findings(self) -> list[Finding]:
        kinds = ", ".join(
            counted(self.kinds[kind], name, _plural(name)) for kind, name in NAMES.items() if self.kinds[kind]
        )
        return self.tally.finding(
            "personal-data",
            f"{{rows}} with personal data or secrets ({kinds})",
            "A tuned model can say them to anybody. Mask what it need not learn; names and addresses of people are not "
            "looked for.",
            "high",
            "mask-personal-data",
        )


def _plural(name: str) -> str:
    return f"{name}es" if name.endswith("s") else f"{name}s"


def language_of(text: str) -> str | None:
    """The language of a text (ISO 639-1), None where it is too short, code or data, or not clear."""
    text = CODE.sub(" ", text[:MOST_READ])
    wide = sum(c > "⺀" for c in text)  # a character of Chinese or Japanese says as much as three letters
    if sum(map(str.isalpha, text)) + 2 * wide < LEAST_LETTERS:
        return None
    if len(MARKS_OF_CODE.findall(text)) > MOST_MARKS * len(text):
        return None
    language, share = _identifier().classify(text)
    return SAME.get(language, language) if share >= SURE else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
