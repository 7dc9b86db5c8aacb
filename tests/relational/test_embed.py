"""Embeddings: the closed form is the principal components of the gradients, and keeps what normalising destroys."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from operant.core.checks import BudgetError, InputError
from operant.relational import embed
from operant.relational.bank.primitives import polynomials
from operant.relational.bank.problems import FAMILIES
from operant.relational.bank.tasks import TaskBank

BANKS = {
    "quadratic": lambda: FAMILIES["quadratic"].bank(15, 15, rng=np.random.default_rng(0)),
    "polynomials": lambda: polynomials([1, 3, 5, 7] * 10, rng=np.random.default_rng(1)),
    "two outputs": lambda: FAMILIES["lotka_volterra"].bank(8, 8, rng=np.random.default_rng(2)),
    "two inputs": lambda: FAMILIES["plume"].bank(10, 10, rng=np.random.default_rng(3)),
    "measured": lambda: FAMILIES["exp"].bank(10, 10, rng=np.random.default_rng(4), points=18, noise=0.05),
}


def case(name: str) -> tuple[TaskBank, np.ndarray, embed.Probe]:
    bank = BANKS[name]()
    x = bank.grid(16) if bank.d == 1 else FAMILIES["plume"].grid(16)
    return bank, x, embed.train_probe(bank, x, hidden=(12, 10), steps=50)


@pytest.mark.parametrize("name", BANKS)
def test_gradients_equal_backward_passes_one_by_one(name: str) -> None:
    bank, x, probe = case(name)
    fast = embed.probe_gradient(probe, bank, x, chunk=7)
    inputs = torch.from_numpy(bank.scaling.x_in(x))
    for i in (0, len(bank) - 1):
        target = torch.from_numpy(bank.scaling.y_in(bank.values(x)[i]))
        network = probe.network.requires_grad_(True)
        network.zero_grad()
        ((network(inputs) - target) ** 2).mean().backward()
        slow = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        network.requires_grad_(False)
        np.testing.assert_allclose(fast[i], slow.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", BANKS)
def test_the_kernel_form_is_the_pca_of_the_gradients(name: str) -> None:
    bank, x, probe = case(name)
    found = embed.kernel(probe, bank, x, 6)
    pca = PCA(6, svd_solver="full").fit(embed.probe_gradient(probe, bank, x))
    wanted, got = pca.transform(embed.probe_gradient(probe, bank, x)), found.scores(bank)
    real = pca.explained_variance_ > 1e-9 * pca.explained_variance_[0]
    assert real.sum() >= 2
    np.testing.assert_allclose(found.variance[real], pca.explained_variance_[real], rtol=1e-8)
    for a, b in zip(got.T[real], wanted.T[real], strict=True):
        assert abs(np.corrcoef(a, b)[0, 1]) > 1 - 1e-8
        np.testing.assert_allclose(np.abs(a).max(), np.abs(b).max(), rtol=1e-6)


def test_effective_rank_is_the_number_of_parameters_that_act() -> None:
    bank, x, probe = case("quadratic")
    few = embed.kernel(probe, bank, x, 16)
    assert (few.variance > 1e-12 * few.variance[0]).sum() == 3 and 1 <= few.effective_rank <= 3
    even = embed.Embedding(x, x, x, np.ones(4))
    assert even.effective_rank == pytest.approx(4)
    same = TaskBank.from_arrays([(np.arange(9.0), np.arange(9.0) ** 2)] * 3)
    flat = embed.principal(same, same.grid(), 2)
    assert flat.effective_rank <= 2 and np.abs(flat.scores(same)).max() < 1e-12


def test_scores_are_affine_in_the_values_and_zero_between_identical_tasks() -> None:
    bank, x, probe = case("polynomials")
    e = embed.kernel(probe, bank, x, 5)
    y = bank.values(x)
    mix = 0.3 * y[0] + 0.7 * y[1]
    z0, z1, z = e.of_values(np.stack([y[0], y[1], mix]))
    np.testing.assert_allclose(z, 0.3 * z0 + 0.7 * z1, atol=1e-12)
    again = e.of_values(np.stack([y[4], y[4].copy()]))
    assert (again[0] == again[1]).all()


def test_a_difference_keeps_its_length_where_normalising_destroys_it() -> None:
    x = np.linspace(-1, 1, 16)
    steps = np.array([0.0, 1.0, 3.0, 6.0])  # of one transformation
    bank = TaskBank.from_arrays([(x, np.sin(3 * x) + s * x**2) for s in steps])
    probe = embed.train_probe(bank, bank.grid(), hidden=(12, 10), steps=50)
    z = embed.kernel(probe, bank, bank.grid(), 3).scores(bank)
    length = np.linalg.norm(z - z[0], axis=1)
    np.testing.assert_allclose(length[1:] / length[1], steps[1:], rtol=1e-9)
    assert ((z - z[0]) @ (z[3] - z[0]) >= 0).all()  # and its sign
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    normalised = np.linalg.norm(unit - unit[0], axis=1)
    assert normalised[3] / normalised[2] == pytest.approx(1, abs=0.01)  # 3 and 6 look alike


def test_principal_components_are_those_of_sklearn_with_outputs_of_equal_weight() -> None:
    bank, x, _ = case("two outputs")
    found = embed.principal(bank, x, 4)
    values = (bank.values(x) / bank.scaling.y_sd).reshape(len(bank), -1)
    wanted = PCA(4, svd_solver="full").fit_transform(values)
    np.testing.assert_allclose(np.abs(found.scores(bank)), np.abs(wanted), atol=1e-9)


@pytest.mark.parametrize("name", BANKS)
def test_fisher_is_the_mean_square_of_the_gradients_of_the_fitted_network(name: str) -> None:
    bank, x, probe = case(name)
    got = embed.fisher(probe, bank, x)
    body, inputs = probe.network[:-1], torch.from_numpy(bank.scaling.x_in(x))
    phi = body(inputs).numpy()
    phi = phi - phi.mean(0)
    y = bank.scaling.y_in(bank.values(x)[3])
    penalty = 1e-3 * (phi**2).sum(1).mean()
    head = np.linalg.solve(phi.T @ phi + penalty * np.eye(phi.shape[1]), phi.T @ (y - y.mean(0)))
    total = [np.zeros(p.shape) for p in body.parameters() if p.ndim == 2]
    body.requires_grad_(True)
    for point in inputs:
        for c in range(bank.c):
            body.zero_grad()
            (body(point[None])[0] @ torch.from_numpy(head[:, c])).backward()
            for t, p in zip(total, (p for p in body.parameters() if p.ndim == 2), strict=True):
                t += p.grad.numpy() ** 2
    body.requires_grad_(False)
    layers = [t.mean(1) for t in total]
    wanted = np.concatenate([v / np.linalg.norm(v) for v in layers])
    np.testing.assert_allclose(got[3], wanted, rtol=1e-6, atol=1e-9)


def test_fisher_ignores_sign_and_size_which_the_gradient_keeps() -> None:
    x = np.linspace(-1, 1, 16)
    bank = TaskBank.from_arrays([(x, np.exp(x)), (x, -3 * np.exp(x)), (x, np.sin(5 * x))])
    probe = embed.train_probe(bank, bank.grid(), hidden=(12, 10), steps=50)
    f = embed.fisher(probe, bank, bank.grid())
    d = embed.fisher_distance(f, f)
    assert d[0, 1] < 1e-9 and d[0, 2] > 1e-3
    for i, j in ((0, 2), (2, 1)):
        u, v = f[i] / np.maximum(f[i] + f[j], 1e-300), f[j] / np.maximum(f[i] + f[j], 1e-300)
        assert d[i, j] == pytest.approx(1 - u @ v / np.linalg.norm(u) / np.linalg.norm(v), abs=1e-12)
    z = embed.kernel(probe, bank, bank.grid(), 2).scores(bank)
    assert np.linalg.norm(z[0] - z[1]) > 0.1 * np.linalg.norm(z[0] - z[2])


def test_a_probe_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    bank, x, probe = case("quadratic")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = embed.train_probe(bank, x, hidden=(12, 10), steps=50)
    other = embed.train_probe(bank, x, hidden=(12, 10), steps=50, random_state=1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(probe.network.parameters(), again.network.parameters(), strict=True))
    assert not torch.equal(probe.network[0].weight, other.network[0].weight)


def test_training_on_the_mean_task_is_training_on_all() -> None:
    bank, x, probe = case("quadratic")
    network = embed.train_probe(bank, x, hidden=(12, 10), steps=0).network.requires_grad_(True)
    inputs = torch.from_numpy(bank.scaling.x_in(x))
    targets = torch.from_numpy(bank.scaling.y_in(bank.values(x)))
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(50):
        adam.zero_grad()
        ((network(inputs) - targets) ** 2).mean().backward()
        adam.step()
    for a, b in zip(network.parameters(), probe.network.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.numpy(), atol=1e-9)


def test_errors() -> None:
    bank, x, probe = case("quadratic")
    with pytest.raises(InputError, match="ridge must be positive"):
        embed.fisher(probe, bank, x, ridge=0.0)
    with pytest.raises(BudgetError, match="k must be"):
        embed.kernel(probe, bank, x, 0)


def test_the_benchmark_runs_and_its_peers_agree(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    importlib.import_module("relational").embed(40)
    sys.modules.pop("relational")
    text = capsys.readouterr().out
    assert "task by task" in text and "fisher" in text
    assert float(text.split("1 - |correlation| <= ")[1].split()[0]) < 1e-6
