"""The reward function that TRL calls."""

import copy
import json

import pytest

from operant.core.checks import InputError
from operant.hf.trainers.rewards import VerifierReward
from operant.verify import Check, Prompt, Verdict, make_verifier


def answers(rewards):
    return [None if r is None else r.answer for r in rewards]


def test_rewards_answers_and_failures_of_a_call():
    asked: list[Prompt] = []

    class Mine(Check):
        def __call__(self, prompts, completions):
            asked.extend(prompts)
            return [
                Verdict(None, None, "timeout") if c == "?" else Verdict(float(c == p.target), c)
                for p, c in zip(prompts, completions, strict=True)
            ]

    reward, logged = VerifierReward(Mine("mine", lambda action, tasks: [], lambda: None), "right"), []
    columns = {"target": ["4", "4", "5"], "id": [0, 0, 1], "info": [json.dumps({"unit": "m"}), "", "{}"]}
    settings = {"log_metric": lambda *x: logged.append(x), "completion_ids": [[1]], "trainer_state": None}
    found = reward(["a", "a", "b"], ["4", "3", "?"], **columns, **settings)
    assert found == [1.0, 0.0, None] and answers(found) == ["4", "3", None]
    assert reward.__name__ == "right" and copy.copy(found[0]).answer == "4"
    assert asked == [Prompt(0, "a", "4", {"unit": "m"}), Prompt(0, "a", "4"), Prompt(1, "b", "5")]
    assert logged == [("verifier_failures", pytest.approx(1 / 3))]
    assert reward(["a"], ["?"], target=["4"]) == [None]
    assert reward.failures == {"timeout": 2}
    assert reward([], [], target=[]) == [] and reward.failures == {"timeout": 2}


def test_conversations_and_groups_without_ids():
    """Equal prompts are one group: there 0.5 and 1/2, and sqrt(8) and 2 sqrt(2), are one answer."""
    asked = [[{"role": "user", "content": text}] for text in ("a", "a", "a", "b", "b")]
    said = ["0.5", "$\\sqrt{8}$", "$2\\sqrt{2}$", "1/2", ""]
    completions = [[{"role": "assistant", "content": text}] for text in said]
    with make_verifier("math", processes=1) as check:
        reward = VerifierReward(check)
        system = [[{"role": "system", "content": s}, *asked[0]] for s in ("x", "y")]
        one, two = answers(reward(system, completions[1:3], target=["1/2"] * 2))
        assert one != two, "another system prompt is another group"
        found = reward(asked, completions, target=["1/2"] * 5)
    assert found == [1.0, 0.0, 0.0, 1.0, 0.0]
    a = answers(found)
    assert a[0] == a[3] == "1/2" and a[4] is None and a[1] == a[2] not in (None, "1/2")
    with pytest.raises(InputError, match="expected text, or messages"):
        reward(asked[:1], [[]], target=["1"])
