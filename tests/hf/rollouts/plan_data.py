"""Rollouts for the tests of plans, and what a plan says of them."""

import numpy as np
import torch

from operant.hf.rollouts.plan import make_plan
from operant.strategies import Outcomes, parse


def rollouts(b=40, m=16, seed=0):
    """Beta success rates, wrong answers of unequal frequency, a noisy score."""
    rng = np.random.default_rng(seed)
    reward = rng.random((b, m)) < rng.beta(0.5, 1, size=(b, 1))
    wrong = 1 + np.minimum(rng.geometric(0.5, size=(b, m)), 4)
    score = np.round(reward + rng.normal(size=(b, m)), 1)
    return Outcomes(
        torch.tensor(reward, dtype=torch.float64), torch.tensor(np.where(reward, 0, wrong)), torch.tensor(score)
    )


def successes(counts, m):
    """One prompt for every number of successes in ``counts``; no answers, no scores."""
    return Outcomes((torch.arange(m) < torch.tensor(counts)[:, None]).double())


def planned(outcomes, **settings):
    if "strategies" in settings:
        settings["strategies"] = [parse(text) for text in settings["strategies"]]
    return make_plan([f"q{i}" for i in range(len(outcomes.reward))], outcomes, **settings)


def advice(outcomes, **settings):
    return [r for r in planned(outcomes, **settings)[0] if r["kind"] == "recommendation"]


def records_of(records, kind, strategy):
    return [r for r in records if r["kind"] == kind and r["strategy"] == strategy]


def draws_of(outcomes, b):
    columns = (outcomes.reward, outcomes.answer, outcomes.score)
    return list(zip(*(c[b].tolist() for c in columns), strict=True))
