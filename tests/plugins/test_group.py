"""Advantages on tokens, against the credit of every prompt's rollouts on their own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from operant import BestOf, Majority, Outcomes, PassAt, credit
from operant.core.checks import BudgetError, InputError
from operant.estimators import Transform
from operant.plugins import encode_vote, skyrl, token_advantages, verl
from operant.plugins.scheduled import ScheduledAdvantages
from operant.plugins.votes import decode_votes
from operant.strategies import Strategy, parse

SIZES = {"b": 4, "a": 6, "long": 8, "c": 4}
LENGTH = 5


def flat(*, graded: bool = False, seed: int = 0) -> tuple[Tensor, Tensor, list[str], list[str | None]]:
    """Token rewards, mask, prompt and answer of rollouts in random order."""
    g = torch.Generator().manual_seed(seed)
    prompts = [name for name, m in SIZES.items() for _ in range(m)]
    prompts = [prompts[i] for i in torch.randperm(len(prompts), generator=g).tolist()]
    lengths = torch.randint(1, LENGTH + 1, (len(prompts),), generator=g)
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    answer = [(None, "7", "12", "3/4")[i] for i in torch.randint(0, 4, (len(prompts),), generator=g).tolist()]
    reward = torch.tensor([float(a == "7") for a in answer])
    if graded:
        reward = torch.randn(len(prompts), generator=g)
    tokens = torch.zeros(len(prompts), LENGTH).scatter(1, lengths[:, None] - 1, reward[:, None])
    return tokens, mask, prompts, answer


def slow_advantages(
    tokens: Tensor, mask: Tensor, prompts: list[str], answers: list[str | None], weights: Callable[[Outcomes], Tensor]
) -> Tensor:
    """One prompt at a time, one rollout at a time."""
    result = torch.zeros_like(tokens)
    for prompt in set(prompts):
        rows = [i for i, name in enumerate(prompts) if name == prompt]
        own = sorted({answers[i] or "" for i in rows})
        classes = [-1 if answers[i] is None else own.index(answers[i] or "") for i in rows]
        reward = torch.tensor([sum(tokens[i].tolist()) for i in rows], dtype=torch.float64)
        w = weights(Outcomes(reward, torch.tensor(classes)))
        for i, value in zip(rows, w.tolist(), strict=True):
            for t in range(LENGTH):
                result[i, t] = len(rows) * value * mask[i, t].item()
    return result


@pytest.mark.parametrize("s", ["pass@1", "pass@4", "threshold@4:2", "maj@3", "best@2", "mix(pass@1:0.5, pass@4:0.5)"])
def test_every_prompt_gets_its_own_credit_wherever_its_rollouts_stand(s: str) -> None:
    strategy = parse(s)
    tokens, mask, prompts, answers = flat(graded=s == "best@2")
    given = answers if s == "maj@3" else None
    got, returns = token_advantages(tokens, mask, np.array(prompts, dtype=object), strategy, answers=given)
    torch.testing.assert_close(got, slow_advantages(tokens, mask, prompts, answers, lambda o: credit(strategy, o)))
    assert got.abs().max() > 0 and got.dtype == tokens.dtype
    assert torch.equal(got, returns) and got.data_ptr() != returns.data_ptr()


def test_pass_at_4_against_all_draws() -> None:
    """w_i = U - U without i, U the share of draws of 4 with a success, counted."""

    def value(rewards: list[float]) -> float:
        draws = list(combinations(rewards, 2))
        return sum(max(draw) for draw in draws) / len(draws)

    def weights(o: Outcomes) -> Tensor:
        r = o.reward.tolist()
        return torch.tensor([value(r) - value(r[:i] + r[i + 1 :]) for i in range(len(r))])

    tokens, mask, prompts, answers = flat(seed=1)
    got, _ = token_advantages(tokens, mask, prompts, PassAt(2))
    torch.testing.assert_close(got, slow_advantages(tokens, mask, prompts, answers, weights))


def test_the_order_of_the_batch_does_not_matter() -> None:
    tokens, mask, prompts, _ = flat(seed=2)
    got, _ = token_advantages(tokens, mask, prompts, PassAt(3))
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(5))
    moved, _ = token_advantages(tokens[order], mask[order], [prompts[i] for i in order.tolist()], PassAt(3))
    assert torch.equal(moved, got[order])
    numbers = torch.tensor([sorted(SIZES).index(name) for name in prompts])
    assert torch.equal(token_advantages(tokens, mask, numbers.tolist(), PassAt(3))[0], got)


def test_pass_at_1_is_the_reward_less_the_mean_of_the_others() -> None:
    tokens = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0]])
    got, _ = token_advantages(tokens, mask, ["x"] * 4, PassAt(1))
    third = -1 / 3
    torch.testing.assert_close(got, torch.tensor([[1, 1], [third, third], [third, 0], [0, 0]]))


def test_a_group_without_signal_has_advantage_0() -> None:
    tokens = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])[:, None]
    got, _ = token_advantages(tokens, torch.ones(12, 1), [0] * 4 + [1] * 4 + [2] * 4, PassAt(2))
    assert (got[:4] != 0).all() and (got[4:] == 0).all()


def test_rollouts_without_a_reward_and_rows_of_padding_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tokens, mask, prompts, _ = flat(seed=3)
    clean, _ = token_advantages(tokens, mask, prompts, PassAt(2))
    row = prompts.index("a")
    kept = [i for i in range(len(prompts)) if i != row]
    rest, _ = token_advantages(tokens[kept], mask[kept], [prompts[i] for i in kept], PassAt(2))
    assert not caplog.records
    spoilt = torch.cat([tokens, tokens[:1]])
    spoilt[row, 0] = math.nan
    with caplog.at_level(logging.WARNING):
        got, _ = token_advantages(spoilt, torch.cat([mask, mask[:1]]), [*prompts, "pad0"], PassAt(2))
    assert "1 of 23 rollouts without a finite reward, 1 of 5 groups with too few rollouts" in caplog.text
    assert (got[row] == 0).all() and (got[-1] == 0).all()
    others = [i for i, name in enumerate(prompts) if name != "a"]
    assert torch.equal(got[others], clean[others])
    m, mine = SIZES["a"], [i for i, name in enumerate(prompts) if name == "a" and i != row]
    torch.testing.assert_close(got[mine], rest[[kept.index(i) for i in mine]] * m / (m - 1))


def test_what_cannot_be_used_is_refused() -> None:
    tokens, mask, prompts, answers = flat()
    with pytest.raises(BudgetError, match=r"pass@16 needs groups of at least 16 rollouts, better 32, got 8"):
        token_advantages(tokens, mask, prompts, PassAt(16))
    with pytest.raises(InputError, match=r"maj@3 votes.*Return operant.plugins.encode_vote"):
        token_advantages(tokens, mask, prompts, Majority(3))
    with pytest.raises(InputError, match="expected token_level_rewards and response_mask"):
        token_advantages(tokens, mask[:, 1:], prompts, PassAt(2))
    with pytest.raises(InputError, match=r"index \(bs,\), got .* and 3"):
        token_advantages(tokens, mask, prompts[:3], PassAt(2))
    with pytest.raises(InputError, match="one answer a rollout"):
        token_advantages(tokens, mask, prompts, Majority(3), answers=answers[:3])
    with pytest.raises(InputError, match="leave out one"):
        token_advantages(tokens, mask, prompts, Majority(3), answers=answers, votes_in_reward=True)
    with pytest.raises(InputError, match="0 or 1"):
        token_advantages(tokens - 0.1, mask, prompts, PassAt(2))


@pytest.mark.parametrize("s", [Majority(4), Majority(3), BestOf(2), PassAt(2)], ids=str)
def test_votes_in_the_reward_are_as_good_as_answers(s: Strategy) -> None:
    tokens, mask, prompts, answers = flat(seed=4)
    want, _ = token_advantages(tokens, mask, prompts, s, answers=answers)
    last = mask.sum(1, keepdim=True) - 1
    codes = torch.tensor([encode_vote(a == "7", a) for a in answers])
    encoded = torch.zeros_like(tokens).scatter(1, last, codes[:, None])
    got, _ = token_advantages(encoded, mask, prompts, s, votes_in_reward=True)
    assert torch.equal(got, want) and got.abs().max() > 0


def test_a_vote_survives_float32_and_moves_the_reward_by_less_than_a_hundredth() -> None:
    answers = [None, "", "0", "42", "\\frac{1}{2}", "ü", *map(str, range(2000))]
    for correct in (False, True):
        codes = torch.tensor([encode_vote(correct, a) for a in answers], dtype=torch.float32)
        assert codes.tolist() == [encode_vote(correct, a) for a in answers]
        assert ((codes - float(correct)).abs() < 0.01).all()
        verdict, answer = decode_votes(codes)
        assert (verdict == float(correct)).all() and answer[0] == -1 and (answer[1:] >= 0).all()
    assert len(set(answer.tolist())) > 0.96 * len(answers)  # 2006 hashes into 65535: about 30 meet another
    verdict, answer = decode_votes(torch.tensor([math.nan, 1.0]))
    assert verdict[0].isnan() and verdict[1] == 1 and answer.tolist() == [-1, -1]


@pytest.mark.parametrize("reward", [0.5, 1.3, -1.0, 2.0, encode_vote(False, "42") + 1e-5])
def test_a_reward_that_is_no_vote_is_refused(reward: float) -> None:
    with pytest.raises(InputError, match="add nothing to it"):
        decode_votes(torch.tensor([1.0, reward]))


def test_half_precision_would_merge_votes_and_is_refused() -> None:
    with pytest.raises(InputError, match="bfloat16"):
        decode_votes(torch.tensor([1.0], dtype=torch.bfloat16))


def test_the_estimator_of_verl_reads_the_strategy_from_the_configuration() -> None:
    tokens, mask, prompts, answers = flat(seed=6)
    got = verl.operant(tokens, mask, prompts, {"operant_strategy": "pass@2"}, reward_baselines=None)
    assert torch.equal(got[0], token_advantages(tokens, mask, prompts, PassAt(2))[0])
    codes = torch.tensor([encode_vote(a == "7", a) for a in answers])[:, None].expand(-1, LENGTH) * (
        mask.cumsum(1) == 1
    )
    codes = codes * (mask.cumsum(1).cumsum(1) == 1)
    config = {"operant_strategy": "maj@3", "operant_votes_in_reward": True}
    want, _ = token_advantages(tokens, mask, prompts, Majority(3), answers=answers)
    torch.testing.assert_close(verl.operant(codes, mask, prompts, config)[0], want)  # classes are numbered otherwise
    with pytest.raises(InputError, match="use_kl_in_reward=false"):
        verl.operant(codes, mask, prompts, {**config, "use_kl_in_reward": True})
    for missing in (None, {}):
        with pytest.raises(InputError, match=r"\+algorithm.operant_strategy=pass@16"):
            verl.operant(tokens, mask, prompts, missing)


def test_both_estimators_take_a_transform() -> None:
    tokens, mask, prompts, _ = flat(seed=6)
    want, _ = token_advantages(tokens, mask, prompts, PassAt(2), transform=Transform("log", 0.02))
    config = {"operant_strategy": "pass@2", "operant_transform": "log:0.02"}
    assert torch.equal(verl.operant(tokens, mask, prompts, config)[0], want)
    got = skyrl.operant(
        tokens, mask, prompts, advantages=ScheduledAdvantages("pass@2", transform="log:0.02"), gamma=1.0
    )
    assert torch.equal(got[0], want)
    assert not torch.allclose(want, token_advantages(tokens, mask, prompts, PassAt(2))[0])


def test_the_estimator_of_skyrl_is_the_same_function() -> None:
    tokens, mask, prompts, _ = flat(seed=7)
    got = skyrl.operant(
        tokens, mask, prompts, advantages=ScheduledAdvantages("pass@2"), values=None, gamma=1.0, config=None
    )
    assert torch.equal(got[0], token_advantages(tokens, mask, prompts, PassAt(2))[0])
