"""Fine-tuning in one call. Resuming is tested in tests/language/test_extrapolator.py."""

import copy

import numpy as np
import pytest
import torch

from operant.core.checks import DataError
from operant.hf.rollouts.policy import Encoded, byte_policy
from operant.hf.train.finetune import finetune, sorted_batches
from operant.hf.train.muon import DECAY, MuonAdamW


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


@pytest.mark.parametrize("steps", [2, 3])  # seen in the weights; seen in the loss (the first step has rate 0)
def test_a_training_that_diverges_names_its_learning_rate(steps):
    torch.set_num_threads(1)
    policy = byte_policy(seed=1, hidden=16, layers=1)
    rows = [Encoded([40, 41], [42, 1]), Encoded([50, 51], [52, 1])]
    with pytest.raises(DataError, match=r"diverged by step 2: .* a learning_rate smaller than 1e\+60"):
        finetune(policy, rows, steps=steps, batch_size=2, learning_rate=1e60)


def test_batches_are_rows_in_order_sorted_by_length():
    lengths = np.random.default_rng(0).integers(5, 100, 400).tolist()
    order = np.array(sorted_batches(lengths, 100, 8, seed=1, in_order=True)).reshape(100, 8)
    assert (np.diff(np.array(lengths)[order], axis=1) >= 0).all()
    assert np.sort(order[:50]).tolist() == np.arange(400).reshape(50, 8).tolist()  # the first epoch is as given
    assert np.bincount(order[50:].ravel()).tolist() == [1] * 400 and np.ptp(order[50:].mean(1)) > 50  # shuffled
    shuffled = sorted_batches(lengths, 100, 8, seed=1)
    assert np.bincount(shuffled[:400]).tolist() == [1] * 400 and shuffled != sorted_batches(lengths, 100, 8, seed=2)
    assert np.ptp(np.array(shuffled[:400]).reshape(50, 8).mean(1)) > 50
    assert len(sorted_batches([3, 1, 2], 5, 2, seed=0)) == 10  # fewer rows than a batch


def test_a_batch_in_parts_takes_the_same_step(monkeypatch):
    """Rows of four lengths: the parts' gradients add up to that of the batch."""
    torch.set_num_threads(1)
    rows = [Encoded([40, 41] * n, [42] * n + [1]) for n in (1, 2, 5, 9, 1, 3, 6, 7)]
    after = []
    for parts in (1, 4):
        monkeypatch.setattr("operant.hf.train.finetune.PARTS", parts)
        policy = byte_policy(seed=1, hidden=32, layers=1)
        losses = finetune(policy, rows, steps=3, batch_size=8, learning_rate=1e-2)
        after.append((losses, torch.cat([p.detach().flatten() for p in policy.model.parameters()])))
    assert [loss for _, loss in after[0][0]] == pytest.approx([loss for _, loss in after[1][0]], rel=1e-4)
    torch.testing.assert_close(after[0][1], after[1][1], atol=1e-4, rtol=1e-3)


def test_a_copy_of_a_trained_model_has_weights_of_its_own():
    """Accelerate leaves its forward on the model, bound to it: a copy computed with the weights of the original."""
    policy = byte_policy(seed=1, hidden=16, layers=1)
    finetune(policy, [Encoded([40], [42, 1])] * 2, steps=1, batch_size=2, learning_rate=1e-2)
    again = copy.deepcopy(policy.model)
    with torch.no_grad():
        for p in again.parameters():
            p.zero_()
        assert again(input_ids=torch.tensor([[40]])).logits.abs().max() == 0


def test_muon_steps_matrices_of_layers_and_resumes():
    """Its update has singular values near 1 whatever the gradient; the embedding takes AdamW's step."""

    def steps(count, model, optimizer):
        for seed in count:
            torch.manual_seed(seed)
            loss = model(input_ids=torch.randint(9, (2, 5)), labels=torch.randint(9, (2, 5))).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    first, again = (byte_policy(seed=1, hidden=16, layers=1).model for _ in range(2))
    before = {name: p.detach().clone() for name, p in first.named_parameters()}
    optimizer = MuonAdamW(first, lr=1e-3)
    steps([0], first, optimizer)
    for name, p in first.named_parameters():
        change = p.detach() - before[name]
        if "embed" in name or p.ndim == 1:
            assert change.abs().max() <= 1.01e-3
        else:
            sizes = torch.linalg.svdvals(change) / (1e-2 * max(1, p.shape[0] / p.shape[1]) ** 0.5)
            assert 0.5 < sizes.max() < 1.5
    state = copy.deepcopy(optimizer.state_dict())
    again.load_state_dict(first.state_dict())
    resumed = MuonAdamW(again, lr=1e-3)
    resumed.load_state_dict(state)
    steps([1, 2], first, optimizer)
    steps([1, 2], again, resumed)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_weights_of_muon_stay_bounded():
    """A gradient that keeps its direction: without decay the weights grow by a step each time, with it to 1 / decay."""
    model = byte_policy(seed=1, hidden=16, layers=1).model
    matrix = model.model.layers[0].mlp.up_proj.weight
    optimizer = MuonAdamW(model, lr=0.1)
    direction = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0))
    for _ in range(100):
        matrix.grad = direction.clone()
        optimizer.step()
    step = torch.linalg.svdvals(matrix.detach()).max() * DECAY / max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
    assert 0.5 < step < 1.5  # 100 steps of 1.0 without decay
