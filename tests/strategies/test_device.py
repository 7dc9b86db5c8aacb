"""Count and ranking strategies ask nothing of the device inside ``credit``, and compile into one graph.

A meta tensor has no values: whatever needs one (``.item()``, ``bool``, ``nonzero``) raises.
"""

from __future__ import annotations

import pytest
import torch

from operant import BestOf, Outcomes, PassAt, credit, estimate, parse
from operant.estimators import shapley
from operant.strategies import Strategy

NAMES = [
    "pass@4",
    "pass^4",
    "threshold@4:2",
    "table(0, 0.5, 0.75, 1)",
    "verified@4:0.1:0.2",
    "noisy@4:0.1:0.2",
    "best@4",
    "topmean@4:2",
    "median@4",
    "rank(0.5, 0, 0.5)",
    "first@4",
    "first@4:0.5:fail",
    "mix(pass@1:0.25, best@4:0.75)",
    "harmonic(pass@4)",
]
EVERY = pytest.mark.parametrize("s", [parse(name) for name in NAMES], ids=str)


def outcomes(seed: int = 0) -> Outcomes:
    g = torch.Generator().manual_seed(seed)
    reward = torch.randint(0, 2, (8, 12), generator=g).float()
    return Outcomes(reward, score=torch.randint(0, 2, (8, 12), generator=g).float())


@EVERY
def test_credit_needs_no_value_on_the_host(s: Strategy) -> None:
    o = outcomes().map(lambda x: x.to("meta"))
    assert credit(s, o).is_meta and credit(s, o).shape == (8, 12)
    assert estimate(s, o).stderr.is_meta


def test_credit_needs_no_value_on_the_host_at_m_equal_n_and_for_shapley() -> None:
    o = outcomes().map(lambda x: x[:, :4].to("meta"))
    assert credit(PassAt(4), o).is_meta
    assert shapley(BestOf(1), Outcomes(torch.rand(2, 3)).map(lambda x: x.to("meta"))).is_meta


def test_a_vote_does_need_one() -> None:
    """The check above can fail: class counts have a shape that depends on the data."""
    o = Outcomes(torch.rand(2, 5), torch.zeros(2, 5, dtype=torch.long)).map(lambda x: x.to("meta"))
    with pytest.raises((NotImplementedError, RuntimeError)):
        credit(parse("maj@3"), o)


@pytest.mark.parametrize(
    "names", [("pass@4", "pass@3"), ("best@4", "topmean@4:2"), ("mix(pass@1:0.25, best@4:0.75)", "median@3")]
)
@pytest.mark.parametrize("dynamic", [False, None])
def test_credit_compiles_and_knows_its_strategy_and_m(names: tuple[str, str], dynamic: bool | None) -> None:
    """The tables are constants of the graph: another strategy or another M must not read them."""
    torch.compiler.reset()
    compiled = torch.compile(lambda s, o: credit(s, o), backend="eager", dynamic=dynamic, fullgraph=dynamic is False)
    for s in map(parse, names):
        for m in (12, 7):
            o = outcomes().map(lambda x, m=m: x[:, :m])
            torch.testing.assert_close(compiled(s, o), credit(s, o))
