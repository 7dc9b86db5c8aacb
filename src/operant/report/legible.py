"""Text out of files, made fit for pages, drawings and terminals."""

from __future__ import annotations

import re

ILLEGIBLE = re.compile("[^\\t\\n\\r\\x20-\\x7e\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""Control characters, which a terminal obeys and XML forbids, and lone surrogates, which UTF-8 lacks."""


def legible(text: str) -> str:
    r"""The text with U+FFFD in the place of what no page, drawing or terminal may be given.

    >>> legible("a\x00b")
    'a\ufffdb'
    """
    return ILLEGIBLE.sub("\ufffd", text)
