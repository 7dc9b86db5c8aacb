"""Fine-tuning in one call. Resuming is tested in tests/language/test_extrapolator.py."""

import copy

import numpy as np
import torch

from operant.hf.rollouts.policy import Encoded, byte_policy
from operant.hf.train.finetune import WINDOW, finetune, grouped_order


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


def test_batches_have_rows_of_similar_length_and_every_row_once_an_epoch():
    lengths = np.random.default_rng(0).integers(5, 100, 8 * 2 * WINDOW).tolist()
    order = grouped_order(lengths, 4 * WINDOW, 8, seed=1)
    assert np.bincount(order, minlength=len(lengths)).tolist() == [2] * len(lengths)  # two epochs
    batches = np.array(lengths)[np.array(order).reshape(-1, 8)]
    assert batches.sum() / (8 * batches.max(1)).sum() > 0.95  # hardly any padding; in random order 0.6
    assert abs(np.corrcoef(np.arange(WINDOW), batches[:WINDOW].mean(1))[0, 1]) < 0.4  # not sorted by length
    assert order != grouped_order(lengths, 4 * WINDOW, 8, seed=2)
    assert len(grouped_order([3, 1, 2], 5, 2, seed=0)) == 10  # fewer rows than a window


def test_a_copy_of_a_trained_model_has_weights_of_its_own():
    """Accelerate leaves its forward on the model, bound to it: a copy computed with the weights of the original."""
    policy = byte_policy(seed=1, hidden=16, layers=1)
    finetune(policy, [Encoded([40], [42, 1])] * 2, steps=1, batch_size=2, learning_rate=1e-2)
    again = copy.deepcopy(policy.model)
    with torch.no_grad():
        for p in again.parameters():
            p.zero_()
        assert again(input_ids=torch.tensor([[40]])).logits.abs().max() == 0
