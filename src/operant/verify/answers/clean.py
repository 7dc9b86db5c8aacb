"""One spelling for what LaTeX and Unicode write in several ways; and which letters are words, not variables."""

from __future__ import annotations

import re

_CHARACTERS = {
    **dict.fromkeys("−–", "-"),
    **dict.fromkeys("\u00a0\u2009\u202f", " "),
    **{"×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap "},
    **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∈": r"\in ", "°": r"^\circ ", "≈": r"\approx "},
    **{"²": "^2", "³": "^3", "√": r"\sqrt ", "∅": r"\emptyset "},
}
RULES = tuple(
    (re.compile(pattern), put)
    for pattern, put in (
        (r"\\(?:left|right)\.", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*", ""),
        (r"\\h?phantom\s*(?:\{[^{}]*\}|\S)", ""),
        (r"\\(?:displaystyle|limits)(?![a-zA-Z])\s*", ""),
        (r"\s*(?<!\\)\\!\s*", ""),
        (r"(?<!\\)\\[,;:> ]|(?<!\\)~|\\q?quad(?![a-zA-Z])", " "),
        (r"\{\s*,\s*\}", ","),
        (r"\^\s*(-\d+)", r"^{\1}"),
        (r"(?<=[\d%])\s+x\s+(?=[\d$])", r" \\times "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:mbox|hbox|mathrm|mathbf|mathit|boldsymbol|operatorname\*?|text[a-z]+)\s*\{", r"\\text{"),
        (r"\\text\s+\{", r"\\text{"),
        (r"\\text\{\s*\}", ""),
        (r"\\(?:leq|leqslant|le)(?![a-zA-Z])", r"\\le "),
        (r"\\(?:geq|geqslant|ge)(?![a-zA-Z])", r"\\ge "),
        (r"\\(?:lt)(?![a-zA-Z])", "<"),
        (r"\\(?:gt)(?![a-zA-Z])", ">"),
        (r"\\neq?(?![a-zA-Z])", r"\\ne "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\lbrack(?![a-zA-Z])", "["),
        (r"\\rbrack(?![a-zA-Z])", "]"),
        (r"\\(?:varnothing|O)(?![a-zA-Z])", r"\\emptyset"),
        (r"\\degree(?![a-zA-Z])|\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\circ(?![a-zA-Z])", r"^\\circ "),
        (r"(?:\s*,)?\s*\\text\{\s*,?\s*(?:and|or)\s*\}\s*", ", "),
        (r"(?<=[\w)\]}])\s*,?\s+(?:and|or)\s+(?=[\w(\[{\\$+-])", ", "),
    )
)
# Marks around a whole answer, besides commands such as \boxed{...}.
_MARKS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_FUNCTIONS = re.compile(r"(arc)?(sin|cos|tan|sec|csc|cot)h?|log|ln|lg|exp|sqrt|max|min|gcd|lcm|mod|det|arg|lim")
# Words of two letters.
_SHORT = re.compile("is|it|in|of|to|or|so|no|we|he|me|my|by|at|as|an|am|be|do|go|if|on|up|us|ok")
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
COMMAND = re.compile(r"\\(?:begin|end)\{\w+\*?\}|\\[A-Za-z]+")


def clean(text: str) -> str:
    """The text of an answer without spacing, sizes, fonts, marks around it and a full stop, which do not change it."""
    text = text.translate(str.maketrans(_CHARACTERS)).strip()
    for pattern, put in RULES:
        text = pattern.sub(put, text)
    before = ""
    while text != before:
        before, text = text, _unwrap(text.strip())
        while text[-1:] in (".", ",", ";", ":") or text.endswith("\\\\"):
            text = text.rstrip("\\").rstrip(".,;: ")
    return text


def closing(text: str, start: int) -> int:
    """The place of the brace that closes the one at ``start``; -1 if there is none."""
    depth, i = 0, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        else:
            depth += (text[i] == "{") - (text[i] == "}")
            if not depth:
                return i
        i += 1
    return -1


def _unwrap(text: str) -> str:
    for left, right in _MARKS:
        inner = text[len(left) : len(text) - len(right)]
        if len(text) > len(left + right) and text.startswith(left) and text.endswith(right) and left not in inner:
            return inner
    command = re.match(r"\\(?:boxed|fbox|text)\s*(?=\{)", text)
    if command and closing(text, command.end()) == len(text) - 1:
        return text[command.end() + 1 : -1]
    return text


def key(text: str) -> str:
    """The form in which texts are compared: a cleaned answer without fonts and needless spaces, words in lower case."""
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    lone = re.fullmatch(r"\(\s*([A-Za-z])\s*\)", text.strip())
    text = re.sub(r"\s+", " ", lone.group(1) if lone else text).strip()
    text = re.sub(r"(?<![A-Za-z0-9])\s|\s(?![A-Za-z0-9])", "", text)
    return text.lower() if has_words(text) else text


def has_words(text: str) -> bool:
    r"""Whether letters of the text are words: longer than a product such as ab or xyz, and no name of a function.

    >>> [has_words(t) for t in ("x + 2ab", "3 abc", r"\sin x", "so x is 5", "Friday")]
    [False, False, False, True, True]
    """
    plain = COMMAND.sub(" ", text)
    return any(_is_word(m.group(), plain, m.start(), m.end()) for m in _WORD.finditer(plain))


def _is_word(run: str, text: str, start: int, end: int) -> bool:
    if len(run) == 1 or _FUNCTIONS.fullmatch(run.lower()):
        return False
    if len(run) == 2:  # a word only if it stands alone: an + b is a product
        return bool(_SHORT.fullmatch(run.lower())) and text[start - 1 : start].strip(" ,(") == "" == text[
            end : end + 1
        ].strip(" ,.)")
    return any(not 0 < ord(b) - ord(a) <= 2 for a, b in zip(run, run[1:], strict=False))
