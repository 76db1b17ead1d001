"""Bytes as text: the byte order mark, UTF-8, UTF-16 without a mark, else the likeliest code page, which is said."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import IO

from tunelab.data.reading.opening import Member
from tunelab.errors import UserError

LATIN = ("cp1250", "cp1252", "cp1254", "cp1257", "latin_1", "iso8859_2")
CHUNK = 1 << 20
SAMPLE = 1 << 15  # bytes from which a code page is guessed
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# what people write who do not write UTF-8; an encoding of several bytes has to fit to the letter
CODE_PAGES = (
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "euc_kr",
    "cp1251",
    "cp1252",
    "cp1250",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
)


def encoding_of(member: Member) -> tuple[str, str | None]:
    """The encoding of a file, and a note where it is guessed.

    Raises:
        UserError: it is empty, or no text.
    """
    with member.open() as file:
        head = file.read(4096)
        for mark, encoding in MARKS:
            if head.startswith(mark):
                if mark == codecs.BOM_UTF8:
                    _look_through(member)
                return encoding, None
        if not head.strip():
            _check_not_empty(file, member.name)
        if b"\0" in head and (wide := _wide(head)):
            return (
                wide,
                f"{member.name} is read as {wide.upper()}, which it does not say; save it as UTF-8 if letters look "
                "wrong",
            )
    wrong, right, sample = _look_through(member)
    if not wrong:
        return "utf-8", None
    if right > wrong:  # UTF-8 with rows that are broken
        return "utf-8", None
    page = _code_page(sample)
    if page is None:
        raise UserError(
            f"{member.name} is not UTF-8 text, and no other encoding fits. Save it as UTF-8, e.g. 'CSV UTF-8' in a "
            "spreadsheet."
        )
    return page, f"{member.name} is not UTF-8 and is read as {page} (guessed); save it as UTF-8 if letters look wrong"


def open_text(member: Member, encoding: str) -> IO[str]:
    """The file's text, its line ends as they are. A byte that is no UTF-8 becomes a lone surrogate, for which the row
    is left out by name."""
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    return io.TextIOWrapper(member.open(), encoding=encoding, errors=errors, newline="")


def _check_not_empty(file: IO[bytes], name: str) -> None:
    while chunk := file.read(CHUNK):
        if chunk.strip():
            return
    raise UserError(f"{name} is empty. Give a file with a header or one JSON object per line.")


def _wide(head: bytes) -> str | None:
    """UTF-16 by where its zeros stand, which every second byte of most texts is."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    for encoding, many, few in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if many > len(head) // 8 and few < many // 8:
            try:
                codecs.getincrementaldecoder(encoding)().decode(head)
            except UnicodeDecodeError:
                continue
            return encoding
    return None


def _look_through(member: Member) -> tuple[int, int, bytes]:
    """How many characters of a file are not UTF-8, how many beyond ASCII are, and text around those that are not.

    Raises:
        UserError: it holds a NUL byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    wrong = right = line = 0
    sample = bytearray()
    for chunk, last in _chunks(member):
        if b"\0" in chunk:
            line += chunk[: chunk.index(b"\0")].count(b"\n") + 1
            raise UserError(
                f"{member.name}, line {line}: holds a NUL byte; this is not a text file. Export it again as text."
            )
        line += chunk.count(b"\n")
        text = decoder.decode(chunk, last)
        if text.isascii():
            continue
        letters = text.encode("utf-8", "ignore").decode()  # without the bytes that are none
        broken = len(text) - len(letters)
        wrong += broken
        right += len(letters) - len(letters.encode("ascii", "ignore"))
        if broken and len(sample) < SAMPLE:
            lines = [part for part in chunk.split(b"\n") if not part.isascii()]
            sample += b"\n".join(lines)[: SAMPLE - len(sample)]
    return wrong, right, bytes(sample)


def _chunks(member: Member) -> Iterator[tuple[bytes, bool]]:
    with member.open() as file:
        chunk = file.read(CHUNK)
        while chunk:
            following = file.read(CHUNK)
            yield chunk, not following
            chunk = following


def _code_page(sample: bytes) -> str | None:
    import charset_normalizer

    # the sample may end within a character
    best = charset_normalizer.from_bytes(
        sample[: len(sample) - 1] if len(sample) >= SAMPLE else sample, cp_isolation=list(CODE_PAGES)
    ).best()
    page = str(best.encoding) if best else None
    if page in LATIN and _is_western(sample):
        return "cp1252"
    return "cp1250" if page == "cp1252" else page


def _is_western(sample: bytes) -> bool:
    """Whether text in a Latin code page holds letters of Western Europe alone. Those of the Centre have the same bytes
    in part; they show by signs within words (¹ ³ ¿), by š and ž, and by õ and û without other letters of the West."""
    text = sample.decode("cp1252", "replace")
    letters = {letter for letter in text if letter > "\x7f"}
    if letters & set("šžŠŽ\ufffd") or re.search(r"[^\W\d_][¹³¿£¥¯]|[¹³¿£¥¯][^\W\d_]", text.replace(" ¿", " ")):
        return False
    return not letters & set("õûÕÛ") or bool(letters & set("ãçêéàñ"))
