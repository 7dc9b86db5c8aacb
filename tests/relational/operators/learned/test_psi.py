"""Learned operators: their invariances, their closed forms, their storage, and that they learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from operant.core.checks import DataError
from operant.relational.bank.curves import Array
from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.base import Adapted, Context
from operant.relational.operators.baselines import Nearest
from operant.relational.operators.components import Components
from operant.relational.operators.learned.bilinear import Bilinear
from operant.relational.operators.learned.pairs import Layers, PairSampler
from operant.relational.operators.learned.psi import Psi
from operant.relational.operators.ridge import ridge

QUICK = [Psi(steps=25, members=2, width=16, batch=8), Bilinear(steps=25, rank=3, width=16, batch=8)]


def line_and_wave(p: Array, x: Array) -> Array:
    return p[:, :1] * x[:, 0] + p[:, 1:2] * np.sin(4 * x[:, 0])


def wave_bank(tasks: int = 30) -> TaskBank:
    params = np.random.default_rng(0).uniform([0.2, 0.5], [1.0, 1.0], (tasks, 2))
    return TaskBank.from_callables(line_and_wave, np.linspace(-1, 1, 64)[:, None], params=params)


def outside(rng: np.random.Generator, p: int = 8) -> tuple[Context, Array, Array]:
    """A target steeper than all of the bank."""
    params = rng.uniform([1.0, 0.5], [1.6, 1.0], (1, 2))
    x, q = rng.uniform(-1, 1, (p, 1)), rng.uniform(-1, 1, (32, 1))
    return Context(x, line_and_wave(params, x).T), q, line_and_wave(params, q).T


def loss(adapted: Adapted, q: Array, truth: Array) -> float:
    return float(np.mean((adapted.predict(q)[0] - truth) ** 2))


def test_members_side_by_side_are_separate_networks() -> None:
    torch.manual_seed(0)
    layers = Layers(3, [2, 5, 4])
    x = torch.randn(3, 6, 7, 2)
    out = layers(x)
    for e in range(3):
        hidden = x[e] @ layers.weights[0][e] + layers.biases[0][e]
        want = torch.nn.functional.silu(hidden) @ layers.weights[1][e] + layers.biases[1][e]
        assert torch.allclose(out[e], want, atol=1e-5)


def test_pairs_are_differences_of_two_different_tasks() -> None:
    bank = wave_bank()
    sampler = PairSampler.of(bank, Components(bank, 4), torch.float64)
    g = torch.Generator().manual_seed(0)
    p = sampler.pairs(200, g)
    assert p.xc.shape == (200, 12, 1) and p.rq.shape == (200, 16, 1)
    count = p.mask.sum(1)
    assert count.min() == 1 and count.max() == 12
    assert (p.rc[p.mask == 0] == 0).all() and (p.rc.abs().sum((1, 2)) > 0).all()
    values = torch.tensor(bank.values(p.xq[:3].reshape(-1, 1).numpy()).reshape(30, 3, 16))
    for b in range(3):
        target = (values[:, b] - (p.aq + p.rq)[b, :, 0]).abs().sum(1).argmin()
        anchor = (values[:, b] - p.aq[b, :, 0]).abs().sum(1).argmin()
        assert target != anchor
        assert torch.allclose(values[target, b] - values[anchor, b], p.rq[b, :, 0], atol=1e-12)
    again = sampler.pairs(200, torch.Generator().manual_seed(0))
    assert torch.equal(again.rq, p.rq)


def test_phi_is_the_signed_difference_of_scores() -> None:
    bank = wave_bank()
    components = Components(bank, 4)
    grid = bank.grid()
    p = PairSampler.of(bank, components, torch.float64).pairs(400, torch.Generator().manual_seed(1))
    mean, u = components(grid)
    for b in np.flatnonzero((p.mask.sum(1) > 8).numpy())[:20]:
        phi = p.phi()[b].numpy()
        curve = u[:, 0] @ phi  # what phi says of the difference, over the whole range
        x = p.xq[b].numpy()
        assert components(x)[1][:, 0] @ phi == pytest.approx(p.rq[b, :, 0].numpy(), abs=0.02)
        assert np.abs(curve).max() < 3
    assert mean.shape == (64, 1)


@pytest.mark.parametrize("operator", QUICK, ids=lambda o: o.name)
def test_order_of_the_context_does_not_matter(operator: Psi | Bilinear) -> None:
    fitted = operator.fit(wave_bank())
    context, q, _ = outside(np.random.default_rng(1))
    turned = Context(context.x[::-1].copy(), context.y[::-1].copy())
    for one, other in zip(fitted.adapt(context).predict(q), fitted.adapt(turned).predict(q), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("operator", QUICK, ids=lambda o: o.name)
def test_the_same_seed_gives_the_same_answer_and_storage_keeps_it(operator: Psi | Bilinear) -> None:
    bank = wave_bank()
    context, q, _ = outside(np.random.default_rng(2))
    state = torch.random.get_rng_state()
    fitted = operator.fit(bank)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers are touched
    want = fitted.adapt(context).predict(q)
    assert np.array_equal(operator.fit(bank).adapt(context).predict(q)[0], want[0])
    arrays = fitted.to_arrays()
    assert all(isinstance(v, np.ndarray) and v.dtype.kind == "f" for v in arrays.values())
    back = operator.from_arrays(bank, arrays).adapt(context).predict(q)
    assert np.array_equal(back[0], want[0]) and np.array_equal(back[1], want[1])
    with pytest.raises(DataError, match="do not fit"):
        type(operator)(width=8).from_arrays(bank, arrays)


def test_left_out_of_the_bilinear_form_is_a_refit_with_anchors_and_weights_held() -> None:
    fitted = Bilinear(steps=10, rank=3, width=16, batch=8).fit(wave_bank())
    context, _, _ = outside(np.random.default_rng(3))
    adapted = fitted.adapt(context)
    order, anchor = fitted.anchors(context)
    points = torch.tensor(context.x).expand(len(anchor), *context.x.shape)
    h = fitted.net.h(points, torch.tensor(anchor)).numpy()
    penalty = float(fitted.net.log_ridge.exp())
    weight = {d.anchor: d.weight for d in adapted.decompositions}
    w = np.array([weight[fitted.bank.keys[i]] for i in order])
    for i in range(8):
        rest = np.arange(8) != i
        each = [
            anchor[a, i] + ridge(h[a][rest], (context.y - anchor[a])[rest], penalty).mean(h[a][i : i + 1])[0]
            for a in range(3)
        ]
        assert adapted.left_out()[0][i] == pytest.approx((w[:, None] * each).sum(0), abs=1e-8)


@pytest.mark.parametrize("operator", QUICK, ids=lambda o: o.name)
@pytest.mark.parametrize("p", [1, 5, 20])
def test_two_inputs_two_outputs_ragged(operator: Psi | Bilinear, p: int) -> None:
    rng = np.random.default_rng(4)
    tasks = [rng.uniform(-1, 1, (n, 2)) for n in rng.integers(15, 25, 8)]
    bank = TaskBank.from_arrays([(x, np.column_stack([a * x[:, 0], x[:, 1] + a])) for a, x in enumerate(tasks)])
    x = rng.uniform(-1, 1, (p, 2))
    adapted = operator.fit(bank).adapt(Context(x, np.column_stack([9 * x[:, 0], x[:, 1] + 9])))
    mean, sd = adapted.predict(x[:1])
    assert mean.shape == sd.shape == (1, 2) and np.isfinite(mean).all() and (sd > 0).all()
    left, spread = adapted.left_out()
    assert left.shape == spread.shape == (p, 2) and np.isfinite(left).all() == (p > 1)
    assert sum(d.weight for d in adapted.decompositions) == pytest.approx(1)


@pytest.mark.parametrize(
    ("operator", "factor"),
    [(Bilinear(steps=120, width=32, batch=16), 0.02), (Psi(steps=200, members=1, width=32, batch=16), 0.4)],
    ids=["bilinear", "psi"],
)
def test_they_learn_what_to_add_to_the_nearest_task(operator: Psi | Bilinear, factor: float) -> None:
    bank, rng = wave_bank(), np.random.default_rng(5)
    learned, untrained, nearest = operator.fit(bank), type(operator)(steps=0).fit(bank), Nearest().fit(bank)
    total = np.zeros(3)
    inside = []
    for _ in range(30):
        context, q, truth = outside(rng)
        total += [loss(f.adapt(context), q, truth) for f in (learned, untrained, nearest)]
        mean, sd = learned.adapt(context).predict(q)
        inside.append(np.mean(np.abs(mean - truth) <= 1.645 * sd))
    assert total[0] < factor * min(total[1], total[2])
    assert np.mean(inside) > 0.75
