"""The glossary: every term is found in its forms, and a page explains exactly the terms that it shows."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest

from operant.report.glossary import GLOSSARY, explained
from tests.report.reading import rendered
from tests.report.test_conformance import run_folder

FORMS = {
    "pass@1 pass@64 pass@N exact": ["pass@1", "pass@64", "pass@N"],
    "threshold@8:3, quorum@16:5:0.5": ["threshold@8:3", "quorum@16:5:0.5"],
    "mix(pass@1:0.25, pass@64:0.75)": ["mix(pass@1:0.25, pass@64:0.75)", "pass@1:0.25", "pass@64:0.75"],
    "ce, best step and T; ce, best T": ["ce", "best step and T", "best T"],
    "Dead groups of M rollouts": ["Dead groups", "rollouts"],
    "95 % interval and 90 % bootstrap interval": ["95 % interval", "90 % bootstrap interval"],
    "once, service, pass, bypass@4, noisy": [],
}


@pytest.mark.parametrize("text", FORMS)
def test_terms_are_found_in_their_forms(text: str) -> None:
    assert sorted(form for _, forms in explained(text) for form in forms) == sorted(FORMS[text])


def test_names_are_distinct_and_meanings_are_sentences() -> None:
    names = [term.name for term in GLOSSARY]
    assert len(set(names)) == len(names)
    for term in GLOSSARY:
        assert term.meaning[0].isupper() or term.meaning.split()[0] in ("p,", "pass@N"), term.name
        assert term.meaning.endswith(".") and len(term.meaning) < 200, term.name


def test_a_page_explains_the_terms_that_it_shows(tmp_path: Path) -> None:
    html = rendered(run_folder(tmp_path / "run"))
    body, glossary = html.split('<section id="glossary">')
    forms = [f for found in re.findall(r'data-forms="([^"]*)"', glossary) for f in json.loads(unescape(found))]
    assert {"pass@16", "ce", "warm start", "mix(pass@1:0.5, pass@4:0.5)", "95 % intervals"} <= set(forms)
    shown = unescape(re.sub("<[^>]*>", " ", body))
    assert all(form in shown for form in forms)
    assert "anchor" not in forms and "<dt>anchor</dt>" not in glossary
