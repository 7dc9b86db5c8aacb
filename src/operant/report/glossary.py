"""What the terms of the pages mean: a term that stands on a page is explained on hover, on focus and at its end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_N = r"(?:\d+|N|k)"


@dataclass(frozen=True)
class GlossaryTerm:
    """A term of the pages.

    Args:
        name: as the glossary writes it.
        pattern: a regular expression for its forms in a text.
        meaning: a sentence or two.
    """

    name: str
    pattern: str
    meaning: str

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """The pattern between characters that do not continue a word or a strategy's string."""
        return re.compile(rf"(?<![\w@^-])(?:{self.pattern})(?![\w@^(-])")


def _family(name: str) -> str:
    """The strings of a family of strategies, which may have arguments: ``threshold@8:3``."""
    return rf"{name}@{_N}(?::[\w.]+)*"


_TERMS = (
    ("pass@N", _family("pass"), "The probability that at least one of N samples is right, as a verifier would find."),
    ("pass^N", rf"pass\^{_N}", "The probability that all N samples are right."),
    ("maj@N", _family("maj"), "The probability that a majority vote of N samples is right. Ties are broken at random."),
    ("best@N", _family("best"), "The expected reward of that one of N samples which the score ranks first."),
    ("threshold@N:k", _family("threshold"), "The probability that at least k of N samples are right."),
    ("verified@N", _family("verified"), "pass@N with a verifier of known error rates."),
    ("quorum@N:k", _family("quorum"), "A majority vote of N samples that needs at least k votes to answer."),
    ("wmaj@N", _family("wmaj"), "A vote of N samples that is weighted by their scores."),
    ("topmean@N:k", _family("topmean"), "The mean reward of the k best of N samples."),
    ("race@N:k", _family("race"), "Sampling that stops when an answer has k votes, after N samples at the latest."),
    (
        "lead@N:k",
        _family("lead"),
        "Sampling that stops when an answer leads by k votes, after N samples at the latest.",
    ),
    (
        "mixture",
        r"[Mm]ixtures?|mix\([^()]*\)",
        "A weighted mean of strategies, such as mix(pass@1:0.25, pass@64:0.75): one training for several budgets.",
    ),
    ("ce", r"ce", "Cross-entropy, the usual loss of supervised fine-tuning: the baseline of supervised training."),
    (
        "best T, best step and T",
        r"best T|best (?:rate, )?step and T",
        "The sampling temperature T, the training step and the learning rate at which cross-entropy is best. They are "
        "chosen on one half of the held-out prompts and reported on the other.",
    ),
    ("grpo", r"grpo|GRPO", "Group relative policy optimization, TRL's own trainer: the baseline of RL."),
    ("rloo", r"rloo|RLOO", "REINFORCE with the mean reward of the other rollouts subtracted: TRL's own trainer."),
    (
        "warm start",
        r"[Ww]arm start",
        "Cross-entropy steps before the branches. All branches of a seed start from the weights that it leaves.",
    ),
    ("branch", r"[Bb]ranch(?:es)?", "One training, for one objective, from the weights of the warm start."),
    ("baseline", r"[Bb]aseline", "What the gains are measured against. It has the same data and starting weights."),
    ("budget", r"[Bb]udgets?", "N, the number of samples that are drawn for each prompt when the model is used."),
    ("strategy", r"[Ss]trateg(?:y|ies)", "How the samples of a prompt are used: verified, voted on, or ranked."),
    ("rollout", r"[Rr]ollouts?", "One sampled completion of a prompt, with its reward."),
    ("credit", r"[Cc]redit", "The weight w of a rollout in the gradient; the advantage is M w."),
    ("advantage", r"[Aa]dvantages?", "What multiplies the gradient of the log-probability of a rollout."),
    (
        "dead group",
        r"(?:[Dd]ead )?groups?|[Dd]ead",
        "A group is the M rollouts of one prompt in a training step. It is dead if all its weights are 0: it "
        "contributes no gradient.",
    ),
    ("entropy", r"[Ee]ntropy", "How spread the model's next token is, in nats; 0 means that it always says the same."),
    ("unscored", r"unscored", "Share of rollouts that the verifier could not grade."),
    ("verifier", r"[Vv]erifier", "What decides whether a completion is right."),
    ("success rate", r"[Ss]uccess rates?", "p, the probability that one sample for the prompt is right."),
    ("slope", r"[Ss]lopes?", "The derivative of an objective with respect to the success rate p of a prompt."),
    ("noise", r"[Nn]oise", "Standard deviation of a rule's gradient estimate over its slope."),
    ("points", r"(?:percentage )?points", "Differences of percentages: from 40 % to 42 % are 2 points."),
    (
        "95 % interval",
        r"\d\d(?:\.\d+)? % (?:t |bootstrap )?(?:intervals?|bands?)",
        "A range that contains the true value in that share of repeated measurements.",
    ),
    (
        "temperature",
        r"[Tt]emperatures?",
        "Divides the logits before sampling: below 1 is sharper, above 1 more varied.",
    ),
    ("anchor", r"[Aa]nchors?", "The known task that is transformed into the target."),
    ("context", r"[Cc]ontext(?: points?)?", "The measured points of the target."),
    ("query", r"[Qq]uery|[Qq]ueries", "Where the target is asked for."),
    ("operator", r"[Oo]perators?", "A kind of transformation with its parameters, such as a shift or a scale."),
    ("backtest", r"[Bb]acktest", "Predicting the outermost known tasks from the others, to measure the error there."),
    ("residual", r"[Rr]esidual", "Root mean square error on the context."),
    ("support", r"[Ss]upports?", "A row of the target with its output: input and output are given."),
    ("candidate", r"[Cc]andidates?", "A combination of known tasks that may be the target."),
    ("posterior", r"[Pp]osterior", "The probability of a candidate given the supports."),
    ("few-shot prompting", r"[Ff]ew-shot(?: prompting)?", "The model reads the supports as examples and answers."),
)
GLOSSARY = tuple(GlossaryTerm(*entry) for entry in _TERMS)
"""Every term, in the order of the glossary."""


def explained(text: str) -> list[tuple[GlossaryTerm, list[str]]]:
    """The terms that stand in a text, each with the forms in which it does.

    >>> [(term.name, forms) for term, forms in explained("pass@64 beats ce at pass@64 and pass@1")]
    [('pass@N', ['pass@64', 'pass@1']), ('ce', ['ce'])]
    """
    found: list[tuple[GlossaryTerm, list[str]]] = []
    for term in GLOSSARY:
        forms = list(dict.fromkeys(term.expression.findall(text)))
        if forms:
            found.append((term, forms))
    return found
