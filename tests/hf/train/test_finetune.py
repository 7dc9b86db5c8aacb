"""Fine-tuning in one call. Resuming is tested in tests/language/test_extrapolator.py."""

import torch

from operant.hf.rollouts.policy import Encoded, byte_policy
from operant.hf.train.finetune import finetune


def test_a_policy_learns_its_rows_and_leaves_nothing_behind(tmp_path):
    torch.set_num_threads(1)
    policy = byte_policy(seed=1, hidden=32, layers=1)
    rows = [Encoded([40, 41], [42, 1]), Encoded([50, 51], [52, 1])] * 4
    seen, state = [], torch.get_rng_state()
    history = finetune(
        policy,
        rows,
        steps=30,
        batch_size=8,
        learning_rate=1e-2,
        folder=tmp_path,
        progress=lambda *log: seen.append(log),
    )
    assert seen == history and [step for step, _ in history] == list(range(1, 31))
    assert history[-1][1] < 0.3 < history[0][1] and not policy.model.training
    assert torch.equal(torch.get_rng_state(), state) and not list(tmp_path.glob("checkpoint-*"))
