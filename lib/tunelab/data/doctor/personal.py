"""Personal data and secrets in text: e-mail addresses, phone numbers, payment cards, bank accounts, keys and tokens.

A false alarm costs more than it seems, as it hides the true ones: a number counts only with its checksum, its grouping
or a word beside it that says what it is. Order numbers, ISBNs, dates, versions and amounts are none of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tunelab.data.examples import Example

NAMES = {
    "email": "e-mail address",
    "phone": "phone number",
    "card": "payment card",
    "iban": "bank account",
    "key": "key",
}

EMAIL = re.compile(
    r"(?<![\w.+%/:@-])[A-Za-z0-9](?:[\w.+%-]{0,62}[A-Za-z0-9_+])?@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"(?P<end>[A-Za-z]{2,24})(?![\w@-])"
)
FILE_ENDS = frozenset("png jpg jpeg gif svg webp css js ts py txt html json local".split())  # icon@2x.png
# nobody's own address: a role's, a placeholder, a service's
ROLE = re.compile(
    r"^(?:you|user|username|your\W?name|me|email|someone|somebody|test|foo|info|no-?reply|do-?not-?reply|support|help|helpdesk"
    r"|hello|contact|kontakt|office|admin|webmaster|postmaster|sales|orders?|billing|service|team|press|news|newsletter"
    r"|jobs|careers|courses?|feedback|privacy|security|git)@",
    re.IGNORECASE,
)

CARD = re.compile(r"(?<![\w.,/+-])(?:\d[ -]?){13,18}\d(?![\w/-]|[.,]\d)")
# issuers' first digits and lengths: Visa, Mastercard, American Express, Discover, Diners, JCB
ISSUER = re.compile(
    r"4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|6(?:011|5\d\d)\d{12}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
)
GROUPED = re.compile(r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{4,5}")
OTHER_NUMBER = re.compile(
    r"(?:order|invoice|track\w*|shipment|parcel|ref\w*|ticket|case|serial|isbn|ean|upc|sku|imei|id|uuid|bestell\w*"
    r"|rechnung\w*|sendung\w*|commande|factura|pedido|timestamp|hash)[\s:#.no°-]*(?:number|nummer|nr|no|is|ist|:|#)*"
    r"[\s:#.]*$",
    re.IGNORECASE,
)

IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")

PHONE = re.compile(
    r"(?<![A-Za-z0-9_.,/@#$€£%=+-])(?:\+|00|\()?\d[\d ()./\u00a0-]{5,20}\d"
    r"(?![A-Za-z0-9_@%€$£]|[.,:/-]\d| ?(?:times|pieces|items))"
)
DATE = re.compile(
    r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\Z"
    r"|\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.](?:\d{4}|\d\d)\b(?![-/. ]?\d)"
)
THOUSANDS = re.compile(r"[1-9]\d?(?:[ .,\u00a0]\d{3}){2,}")
# a number is a phone number where a word says so, with no other word between them than these
CALLED = re.compile(
    r"(?:\b(?:tel|telephone|telefon|phones?|call|fax|mobile|cell|cellphone|whatsapp|sms|text|dial|hotline|reach(?:ed|able)?"
    r"|handy|rufnummer|rufen|anrufen|telefonnummer|handynummer|mobil|erreichbar|erreichen|téléphone|téléphonez|portable"
    r"|appelez|appeler|teléfono|móvil|llame|llamar|llámame|telefone|celular|cellulare|telefono|chiamare|chiami)\b"
    r"|電話(?:番号)?|携帯(?:番号)?|电话(?:号码)?|手机号?)(?:[\s.:=,()は为是-]"
    r"|\b(?:me|us|him|her|them|at|on|under|via|the|my|our|your|number|no|nr|nummer|is|was|sie|uns|mich|unter|ist|moi|nous|au"
    r"|numéro|est|al|el|número|es|il|numero|è|o)\b){0,12}$",
    re.IGNORECASE,
)
REGIONS = "US GB DE FR ES IT JP IN BR AU NL CH AT".split()
AMERICAN = re.compile(r"\([2-9]\d\d\) ?\d{3}-\d{4}|[2-9]\d\d([-.])[2-9]\d\d\1\d{4}")

KEY = re.compile(
    r"\bAKIA[0-9A-Z]{16}\b|\bASIA[0-9A-Z]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{40,}\b|\bglpat-[\w-]{20,}"  # GitHub, GitLab
    r"|\bsk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9][\w-]{18,}[A-Za-z0-9]|\bhf_[A-Za-z0-9]{30,}\b|\bnpm_[A-Za-z0-9]{36}\b"
    # Stripe, Google, Slack
    r"|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}\b|\bAIza[\w-]{35}|\bxox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"  # JSON web token
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----(?:[\s\S]{0,8000}?-----END (?:[A-Z]+ )?PRIVATE KEY-----)?"
)
KEY_STARTS = (
    "AKIA ASIA ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- sk- hf_ npm_ sk_ rk_ AIza xox eyJ -----BEGIN".split()
)
MIXED = 12  # different characters that a key has at least: a placeholder has few


class Span(NamedTuple):
    start: int
    end: int
    kind: str  # of `NAMES`


def personal_data(text: str) -> list[Span]:
    """Where personal data stands in a text, in its order; spans don't overlap."""
    spans: list[Span] = []
    for find in (_keys, _emails, _ibans, _cards, _phones):
        for span in find(text):
            if not any(span.start < other.end and other.start < span.end for other in spans):
                spans.append(span)
    return sorted(spans)


def masked(text: str) -> str:
    """The text with each span's kind in its place, in brackets."""
    while spans := personal_data(text):
        for span in reversed(spans):
            text = f"{text[: span.start]}[{span.kind}]{text[span.end :]}"
    return text


def without_personal_data(example: Example) -> Example:
    """The row with personal data masked in all its turns."""
    return example.with_texts(masked)


def _emails(text: str) -> Iterator[Span]:
    if "@" not in text:
        return
    for found in EMAIL.finditer(text):
        if not ROLE.search(found[0]) and found["end"].lower() not in FILE_ENDS and ".." not in found[0]:
            yield Span(found.start(), found.end(), "email")


def _cards(text: str) -> Iterator[Span]:
    from stdnum import luhn

    for found in CARD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if not ISSUER.fullmatch(digits) or not luhn.is_valid(digits) or len(set(digits)) == 1:
            continue
        alone = found[0].isdigit() and not OTHER_NUMBER.search(text[max(0, found.start() - 40) : found.start()])
        if alone or GROUPED.fullmatch(found[0]):
            yield Span(found.start(), found.end(), "card")


def _ibans(text: str) -> Iterator[Span]:
    from stdnum import iban

    for found in IBAN.finditer(text):
        whole = found[0]
        for end in range(len(whole), 14, -1):  # words in capitals may follow
            followed = whole[end : end + 1]
            if whole[end - 1] != " " and not followed.isalnum() and iban.is_valid(whole[:end]):
                yield Span(found.start(), found.start() + end, "iban")
                break


def _phones(text: str) -> Iterator[Span]:
    for found in PHONE.finditer(text):
        number = found[0]
        digits = re.sub(r"\D", "", number)
        before = text[max(0, found.start() - 40) : found.start()]
        if not 7 <= len(digits) <= 15 or number.count("(") != number.count(")"):
            continue
        if DATE.match(number) or THOUSANDS.fullmatch(number):
            continue
        if number.startswith(("+", "00")):
            regions: list[str | None] = [None] if number[0] == "+" or CALLED.search(before) else []
            number = number if number[0] == "+" else f"+{number[2:]}"
        else:
            american = AMERICAN.fullmatch(number) and not OTHER_NUMBER.search(before)
            regions = list(REGIONS) if CALLED.search(before) else ["US"] if american else []
        if any(_is_phone_number(number, region) for region in regions):
            yield Span(found.start(), found.end(), "phone")


def _is_phone_number(number: str, region: str | None) -> bool:
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False


def _keys(text: str) -> Iterator[Span]:
    if not any(start in text for start in KEY_STARTS):
        return
    for found in KEY.finditer(text):
        key = found[0]
        # a placeholder repeats a letter, and a word with hyphens has no digits
        if key.startswith("-----") or (len(set(key)) >= MIXED and re.search(r"\d", key)):
            yield Span(found.start(), found.end(), "key")
