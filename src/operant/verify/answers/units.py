"""The unit, currency, percent sign or remark beside a number."""

from __future__ import annotations

import re

from .clean import has_words

PERCENT = "%"
_PERCENTAGE = ("percent", "percentage", "per cent", "pct", "%", "\\%")
# Spellings of the units that are compared: meters are not kilometers. Other units are ignored, because a wrong guess
# would make a right answer wrong.
_NAMES = {
    name: names.split()[0]
    for names in (
        "km kilometer kilometre kms",
        "m meter metre",
        "cm centimeter centimetre cms",
        "mm millimeter millimetre",
        "mile mi",
        "ft foot feet",
        "in inch inches",
        "yd yard",
        "kg kilogram kgs",
        "g gram gm",
        "mg milligram",
        "lb pound lbs",
        "oz ounce",
        "s second sec",
        "min minute mins",
        "h hour hr hrs",
        "day",
        "week",
        "month",
        "year yr yrs",
        "dollar usd bucks",
        "cent",
        "l liter litre",
        "ml milliliter millilitre",
        "kph kmph",
        "mph",
        "deg degree",
        "rad radian",
        "hz",
        "khz",
        "w watt",
        "kw kilowatt",
        "v volt",
        "j joule",
        "kj kilojoule",
        "n newton",
        "pa pascal",
        "k kelvin",
        "mol mole",
        "gal gallon",
    )
    for name in names.split()
}
_NOT_FIRST = re.compile("of|to|in|on|at|from|by|and|or|out|with|is|are|was|were|if|because|since|so|as|for")
_CURRENCY = re.compile(r"(-?)\s*(?:\\?\$|€|£|¥|₹)\s*(-?.*\d.*)", re.DOTALL)
_TEXT = r"\\text\{[^{}]*[A-Za-z%][^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?"
_TEXTS = re.compile(
    rf"(?P<body>.*[^\s\\/^])\s*\^?\s*"
    rf"(?P<unit>(?:(?:\\cdot|/|\*)?\s*{_TEXT}\s*)+|\\frac\{{\s*{_TEXT}\s*\}}\{{\s*{_TEXT}\s*\}})",
    re.DOTALL,
)
_PLAIN = re.compile(
    r"(?P<body>.*[\d})])(?P<space>\s*)"
    r"(?P<unit>/?\s*[A-Za-zµ][A-Za-zµ./ \-]*(?:\^?\d)?(?:/[A-Za-z]+(?:\^?\d)?)?)",
    re.DOTALL,
)
_POWER = re.compile(r"\^\{?-?\d\}?|\b(?:square|cubic|sq\.?|cu\.?)\b")
_REMARK = re.compile(r"(?P<body>.*\S)\s*\((?P<unit>[^()]*)\)", re.DOTALL)
_DEGREES = re.compile(r"(?P<body>.*\S)\s*\^\s*\\circ\s*(?P<unit>[CF]?)")
_PERCENTS = re.compile(r"(?P<body>.*[^\s\\])\s*(?:\\?%|\\text\{\s*\\?%\s*\})")


def split_unit(text: str) -> tuple[str, str]:
    r"""The expression in a text and the unit, "" if it has none.

    >>> [split_unit(t) for t in (r"5\text{ cm}^2", r"\$4", "72 km/h", r"50\%", "5 (years old)", "2d", "x+5 m")]
    [('5', 'cm^2'), ('4', 'dollar'), ('72', 'km/h'), ('50', '%'), ('5', 'years old'), ('2d', ''), ('x+5', 'm')]
    """
    money = _CURRENCY.fullmatch(text)
    if money:
        return split_unit(money[1] + money[2])[0], "dollar" if "$" in text else "money"
    percent = _PERCENTS.fullmatch(text)
    if percent:
        return percent["body"], PERCENT
    texts = _TEXTS.fullmatch(text)
    if texts:
        unit = re.sub(r"\\text\{([^{}]*)\}", r"\1", texts["unit"]).strip()
        return _degrees(texts["body"]), PERCENT if unit.lower() in _PERCENTAGE else unit
    remark = _REMARK.fullmatch(text)
    if remark and has_words(remark["unit"]):
        return split_unit(remark["body"])[0], remark["unit"].strip()
    degrees = _DEGREES.fullmatch(text)
    if degrees:
        return degrees["body"], "degree"
    plain = _PLAIN.fullmatch(text)
    if plain and _is_unit(plain["unit"].strip(), bool(plain["space"])):
        unit = plain["unit"].strip()
        return _degrees(plain["body"]), PERCENT if unit.lower() in _PERCENTAGE else unit
    return text, ""


def differ(a: str, b: str) -> bool:
    """Whether two texts name two different units of the table."""
    first, second = _canonical(a), _canonical(b)
    return first is not None and second is not None and first != second


def _degrees(body: str) -> str:
    degrees = _DEGREES.fullmatch(body)
    return degrees["body"] if degrees else body


def _is_unit(text: str, apart: bool) -> bool:
    """Whether a text is a unit: of the table, or some words after a space. Next to the number it has two letters."""
    words = text.replace("/", " ").split()
    if re.fullmatch(r"st|nd|rd|th", text):
        return True
    if words and all(_name(word) is not None for word in words):
        return apart or len(re.sub(r"\^?\d$|[/\s]", "", text)) > 1
    return apart and len(words) <= 4 and has_words(text) and not _NOT_FIRST.fullmatch(words[0].lower())


def _name(word: str) -> str | None:
    word = re.sub(r"\^?-?\d$", "", word).rstrip(".")
    if len(word) == 1 and word not in "mgshlLNWVJK":  # 3 n and 3 k are products
        return None
    word = word.lower()
    return _NAMES.get(word) or _NAMES.get(word.removesuffix("s")) if word else None


def _canonical(unit: str) -> str | None:
    parts = [_name(_POWER.sub("", part).strip()) for part in unit.split("/")]
    return None if None in parts else "/".join(part for part in parts if part)
