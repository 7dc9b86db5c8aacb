"""The final answer in a completion: boxed, after ####, in a tag, after "the answer is", or the last mathematics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from .clean import clean, closing, has_words
from .read import WORD_LIKE, Text, leaves, read
from .same import same

# The box without braces is \boxed 7.
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?P<brace>\{)|(?P<bare>[^\s{$\\]+))")
# What may stand between two boxes that are one answer.
_LINK = re.compile(r"(?:[\s$.,;]|\\[()\[\]]|\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)*")
_HASHES = re.compile(r"####[ \t]*(\S.*)")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
# "The answer to part 2 is", "Answer:", "the correct option is"; up to 60 characters may stand before the verb, and
# "is not" announces no answer.
_MARKER = re.compile(
    r"\b(?:answers?|(?:correct|right) (?:option|choice)|(?:option|choice)(?= is\b))\b\**"
    r"(?:[^.\n:=]{0,60}?(?:\b(?:is|are|was|be)\b(?!\s+not\b)|:|=)\**:?|\s+(?=[-+\d$\\(]))[\s*]*",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?](?=\s|$)|\n")
# Where the reason after an answer begins: "The answer is 18 because 20 - 2 = 18."
_REASON = re.compile(r"\s*(?:[.,;:]\s|\n|\b(?:because|since|as|so|where|which|when|for|if|by)\b)")
_SPAN = re.compile(
    r"\$\$(?P<a>.+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)|(?<!\\)\$(?P<d>(?:[^$\n\\]|\\.)+)\$", re.DOTALL
)
# Signs that the dollars are money: between those of $4 + $5 is no mathematics.
_OPEN_END = re.compile(r"[-+*/=<>(]$|^[=<>*/)]")
# Without "a" and "I": they are words more often than variables.
_BARE = re.compile(
    r"(?:\\[a-zA-Z]+|\\[%$!,;{}]|[{}\d()\[\]+\-*/^_=<>.,%°×÷·−–€£$]|(?<=\d):(?=\d)|(?<![A-Za-z])[b-zB-HJ-Z](?![A-Za-z])"
    r"|(?<=\d)[a-zA-Z](?![A-Za-z])|\s)+"
)
_NUMBERS = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?|-?\.\d+")
_CHOICE = re.compile(r"(?:\\text\s*\{\s*)?\(?\s*([A-Z])\s*(?:\)|[.:](?=\s|$))")
# Characters from the end of a completion in which an answer is looked for: it keeps a very long text within the time
# limit, and a final answer stands near the end.
_END = 20_000
# GSM8K's annotations <<48/2=24>> repeat intermediate results, which are not the answer.
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


def mine(text: str) -> list[str]:
    """Readings of the final answer. The first one counts; the others count only if their text equals the target's.

    The order: the last box, or the last boxes with nothing but "and" between them; an <answer> tag; GSM8K's ####; the
    last "answer is" or "Answer:"; the whole text, if it is nothing but an answer; the last mathematics in it. A box
    that is not closed was cut off, and gives no answer.
    """
    text = text[-_END:]
    found = _boxed(text)
    # A box counts even if it is empty or cut off: the model meant to answer there, so no other number is taken.
    if found is not None:
        return _choices([found]) if found else []
    tags = _TAG.findall(text)
    if tags:
        return _segment(tags[-1])
    hashes = [m[1].strip() for m in _HASHES.finditer(text) if is_answer(m[1]) or not text[m.end() :].strip()]
    if hashes:
        return _segment(hashes[-1])
    text = _CALCULATOR.sub("", text).strip()
    places = list(_MARKER.finditer(text))
    found = _segment(text[places[-1].end() :]) if places else []
    if not found and is_answer(text):
        found = [text]
    return found or list(islice(_maths(text, _spans(text), backward=True), 1))


def marks_an_answer(text: str) -> bool:
    """Whether a text is a solution that marks its answer: by a box, a tag or ####, or in a later sentence."""
    marked = _BOX.search(text) or _TAG.search(text) or _HASHES.search(text)
    return bool(marked or (_SENTENCE.search(text.strip()[:-1]) and _MARKER.search(text)))


def _boxed(text: str) -> str | None:
    """The content of the last box, or of the last few that are linked; "" if it is not closed; None without a box."""
    places = list(_BOX.finditer(text))
    parts: list[str] = []
    start = len(text)
    for match in reversed(places):
        end = closing(text, match.end() - 1) if match["brace"] else match.end() - 1
        if end < 0:
            return ""
        if parts and (end >= start or not _LINK.fullmatch(text, end + 1, start)):
            break
        inner = (text[match.end() : end] if match["brace"] else match["bare"].rstrip(".,;")).strip()
        start = match.start()
        if not any(same(read(inner), read(part)) for part in parts):
            parts.insert(0, inner)
    return ",".join(parts) if places else None


def is_answer(text: str, *, words: bool = True) -> bool:
    """Whether a text is nothing but an answer: mathematics, or (with ``words``) single words."""
    answer = read(text)
    found = list(leaves(answer))
    texts = [leaf.text for leaf in found if isinstance(leaf, Text)]
    mixed = 0 < len(texts) < len(found)
    return bool(answer.text) and not mixed and all(words and WORD_LIKE.fullmatch(text) for text in texts)


def _segment(text: str) -> list[str]:
    """The answer that a text begins with."""
    text = text.strip()
    spans = _spans(text)
    if spans and spans[0][0] == 0:
        return [spans[0][2]]
    sentence = _SENTENCE.split(text, maxsplit=1)[0].strip(" *_\"'`")
    plain = _SPAN.sub(_inside, sentence)
    cut = _REASON.split(plain, maxsplit=1)[0].strip()
    whole = [part for part in (plain, cut) if part]
    exact = next((part for part in whole if is_answer(part, words=False)), None)
    maths = [] if exact else list(_maths(sentence, _spans(sentence)))
    results = [part for part in maths if "=" in part]
    first = exact or (results[-1:] or maths[:1] or [cut])[0]
    return _choices(list(dict.fromkeys([first, *whole]))) if whole else []


def _choices(found: list[str]) -> list[str]:
    """With the letter that a multiple choice begins with: (B) 12."""
    letters = [match[1] for match in (_CHOICE.match(clean(part)) for part in found) if match]
    return [*found, *letters]


def _spans(text: str) -> list[tuple[int, int, str]]:
    """Where mathematics stands in dollars or brackets, and what; linked ones are one answer. $5 and $6 are money."""
    found: list[tuple[int, int, str]] = []
    for match in _SPAN.finditer(text):
        inside = _inside(match).strip()
        if not inside or _OPEN_END.search(inside) or has_words(re.sub(r"\\text\s*\{[^{}]*\}", "", inside)):
            continue
        if found and _LINK.fullmatch(text, found[-1][1], match.start()):
            start, _, before = found.pop()
            found.append((start, match.end(), f"{before.rstrip('.,; ')}, {inside}"))
        else:
            found.append((match.start(), match.end(), inside))
    return found


def _maths(text: str, spans: Sequence[tuple[int, int, str]], *, backward: bool = False) -> Iterator[str]:
    """The mathematics of a text in order, or the last one first: in dollars or brackets, and bare."""
    rest = list(text)
    for start, end, _ in spans:
        rest[start:end] = "\0" * (end - start)
    bare = [(m.start(), m.end(), m[0]) for m in _BARE.finditer("".join(rest)) if re.search(r"\d|\\[a-z]", m[0])]
    for start, _, chunk in sorted([*spans, *bare], reverse=backward):
        found = _bare(chunk, bullet=not text[:start].rpartition("\n")[2].strip()) if rest[start] != "\0" else chunk
        if found and is_answer(found, words=rest[start] == "\0"):
            yield found


def _bare(chunk: str, *, bullet: bool) -> str:
    """The last answer in a run of mathematical characters: what reads as one, or else its last number."""
    chunk = re.sub(r"^\s*[-*]\s+", "", chunk) if bullet else chunk
    parts = [part for part in re.split(r"[.,;]\s+|\n", f"{chunk} ") if re.search(r"\d|\\[a-z]", part)]
    part = parts[-1].strip(" =.,;*_+-<>:") if parts else ""
    part = f"-{part}" if parts and re.match(r"\s*[*_]*-[\d.\\($]", parts[-1]) else part
    if part and is_answer(part, words=False):
        return part
    numbers = _NUMBERS.findall(part)
    return numbers[-1] if numbers else ""


def _inside(match: re.Match[str]) -> str:
    return next(part for part in match.groups() if part is not None)
