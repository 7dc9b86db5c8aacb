"""Tasks as vectors: probe gradients, their principal components in closed form, Fisher information, plain components.

With a fixed probe h and squared loss over n = G C values on a grid, the gradient of task i is

    g_i = (2 / n) J^T (h - y_i),        J = dh / dtheta (n, W),

an affine map of its values. Its principal components need n x n matrices only, never the (F, W) gradients:
:func:`kernel`. Scores are signed and not normalised, because the length of a difference is the size of the
transformation; what is divided by its norm keeps no more than a direction.

Letters: ``F`` tasks, ``G`` points of the grid, ``D`` inputs, ``C`` outputs, ``W`` weights of the probe, ``U`` hidden
units, ``k`` components. Values are scaled by the bank on which the probe was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from operant.core.checks import InputError, check_int
from operant.relational.bank.curves import Array
from operant.relational.bank.scaling import Scaling
from operant.relational.bank.tasks import TaskBank


@dataclass(frozen=True, eq=False)
class Probe:
    """A small trained network R^D -> R^C, in scaled units. Make one with :func:`train_probe`."""

    network: nn.Sequential
    scaling: Scaling

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its parameters, W numbers in all."""
        return {name: p.detach() for name, p in self.network.named_parameters()}

    def points(self, x: Array) -> Tensor:
        """(G, D) scaled points."""
        return torch.from_numpy(self.scaling.x_in(x))

    def values(self, bank: TaskBank, x: Array) -> Tensor:
        """(F, G, C) scaled values of the tasks."""
        return torch.from_numpy(self.scaling.y_in(bank.values(x)))


@dataclass(frozen=True, eq=False)
class Embedding:
    """An affine map from the values of a task on a grid to k numbers: z = (y - mean) map.

    Args:
        x: (G, D) grid.
        mean: (G, C) mean values of the bank.
        map: (G C, k) from values to scores.
        variance: (k,) of the scores over the bank, the largest first.
    """

    x: Array
    mean: Array
    map: Array
    variance: Array

    def scores(self, bank: TaskBank) -> Array:
        """(F, k) signed scores of tasks, which need not be those of the bank."""
        return self.of_values(bank.values(self.x))

    def of_values(self, y: Array) -> Array:
        """(F, k) signed scores of values (F, G, C) on the grid."""
        return (y - self.mean).reshape(len(y), -1) @ self.map

    @property
    def effective_rank(self) -> float:
        """Exp of the entropy of the shares of variance (Roy & Vetterli 2007); 0 for tasks that are all the same."""
        total = self.variance.sum()
        share = self.variance[self.variance > 0] / total if total > 0 else np.empty(0)
        return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0


def train_probe(
    bank: TaskBank,
    x: Array,
    *,
    hidden: tuple[int, ...] = (64, 64),
    steps: int = 500,
    rate: float = 1e-3,
    random_state: int = 0,
) -> Probe:
    """A ReLU network trained by Adam on the squared error of all tasks at once.

    On a common grid that loss differs from the squared error against the mean task by a constant, so the network is
    trained on the mean task: the same gradients, F times cheaper. Widths, steps and rate are the paper's.

    Args:
        bank: tasks; their scaling becomes the probe's.
        x: (G, D) points.
        hidden: widths of the hidden layers.
        steps: full-batch steps.
        rate: Adam's learning rate.
        random_state: seed of the initial weights.
    """
    scaling = bank.scaling
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        widths = (bank.d, *hidden)
        layers = [m for i, o in zip(widths, hidden, strict=False) for m in (nn.Linear(i, o), nn.ReLU())]
        network = nn.Sequential(*layers, nn.Linear(widths[-1], bank.c)).double()
    inputs = torch.from_numpy(scaling.x_in(x))
    target = torch.from_numpy(scaling.y_in(bank.values(x)).mean(0))
    adam = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(check_int("steps", steps, least=0)):
        adam.zero_grad()
        nn.functional.mse_loss(network(inputs), target).backward()
        adam.step()
    return Probe(network.requires_grad_(False), scaling)


def probe_gradient(probe: Probe, bank: TaskBank, x: Array, *, chunk: int = 1024) -> Array:
    """(F, W) gradients of each task's mean squared error: the paper's embedding before its projection.

    g_i = d/dtheta mean_(G, C) (h(x) - y_i)^2. Use :func:`kernel` unless the gradients themselves are wanted.

    Args:
        probe: see :func:`train_probe`.
        bank: tasks.
        x: (G, D) points.
        chunk: tasks at a time.
    """
    inputs, weights = probe.points(x), probe.weights

    def loss(w: dict[str, Tensor], y: Tensor) -> Tensor:
        return (functional_call(probe.network, w, (inputs,)) - y).square().mean()

    each = vmap(grad(loss), in_dims=(None, 0), chunk_size=chunk)(weights, probe.values(bank, x))
    return torch.cat([g.flatten(1) for g in each.values()], 1).numpy()


def kernel(probe: Probe, bank: TaskBank, x: Array, k: int = 16) -> Embedding:
    """Principal components of :func:`probe_gradient`, exactly, from the residuals and the n x n kernel J J^T.

    With J J^T = V S^2 V^T the rows of (2 / n) Y_c V S have the inner products of the centered gradients, hence the
    same principal scores: the probe is a metric on the values and nothing more.

    Args:
        probe: see :func:`train_probe`.
        bank: tasks.
        x: (G, D) points.
        k: at most so many components; there are no more than n and F - 1.
    """
    inputs = probe.points(x)
    jacobian = jacrev(lambda w: functional_call(probe.network, w, (inputs,)))(probe.weights)
    flat = torch.cat([j.flatten(2) for j in cast("dict[str, Tensor]", jacobian).values()], 2).flatten(0, 1)  # (n, W)
    square, vectors = np.linalg.eigh((flat @ flat.T).numpy())
    metric = -2 / len(flat) * vectors * np.sqrt(np.maximum(square, 0.0))  # -: the residual is h - y
    return _components(bank.values(x), x, metric / np.tile(probe.scaling.y_sd, len(x))[:, None], k)


def principal(bank: TaskBank, x: Array, k: int = 16) -> Embedding:
    """Principal components of the values on the grid, each output in its standard deviation over the bank.

    Args:
        bank: tasks.
        x: (G, D) points.
        k: at most so many components.
    """
    return _components(bank.values(x), x, np.diag(1 / np.tile(bank.scaling.y_sd, len(x))), k)


def _components(values: Array, x: Array, metric: Array, k: int) -> Embedding:
    """Principal components of (values - mean) metric, by QR and the SVD of the small factor."""
    check_int("k", k, least=1)
    mean = values.mean(0)
    changed = (values - mean).reshape(len(values), -1) @ metric
    _, singular, directions = np.linalg.svd(np.linalg.qr(changed, mode="r"))
    k = min(k, len(singular), len(values) - 1)
    largest = np.argmax(np.abs(directions[:k]), axis=1)
    signs = np.sign(directions[np.arange(k), largest])
    return Embedding(x, mean, metric @ (directions[:k].T * signs), singular[:k] ** 2 / (len(values) - 1))


def fisher(probe: Probe, bank: TaskBank, x: Array, *, ridge: float = 1e-3) -> Array:
    """(F, U) Task2Vec: diagonal Fisher information of the probe's hidden weights, after fitting its head to each task.

    The last layer is fitted by ridge regression to task i: f_i(x) = w_i . phi(x). With a Gaussian likelihood the Fisher
    information of a hidden weight is E_x |df_i / dtheta|^2 / sigma^2, which depends on the task through w_i only. It is
    averaged over the weights into a unit ("filter"; Achille et al. 2019, section 3), and each layer is divided by its
    norm, which cancels sigma and keeps one layer from drowning the other. Computed as w_i^T M_u w_i with one matrix M_u
    for each unit u, for all tasks at once.

    Args:
        probe: see :func:`train_probe`.
        bank: tasks.
        x: (G, D) points.
        ridge: of the head, relative to the mean square of the features.

    Raises:
        InputError: for a ridge that is not positive.
    """
    if ridge <= 0:
        raise InputError(f"ridge must be positive, the features outnumber the points; got {ridge}.")
    body = probe.network[:-1]
    inputs = probe.points(x)
    features = body(inputs)  # (G, H)
    head = _heads(features, probe.values(bank, x), ridge)  # (F, H, C)
    weights = {name: p.detach() for name, p in body.named_parameters()}
    jacobian = jacrev(lambda w: functional_call(body, w, (inputs,)))(weights)
    parts: list[Tensor] = []
    for name, j in cast("dict[str, Tensor]", jacobian).items():
        if name.endswith("weight"):  # (G, H, units, weights into a unit)
            pair = torch.einsum("ghui,gkui->uhk", j, j)  # sums: what makes them means cancels below
            layer = torch.einsum("fhc,uhk,fkc->fu", head, pair, head)
            parts.append(layer / layer.norm(dim=1, keepdim=True).clamp_min(1e-300))
    return torch.cat(parts, 1).numpy()


def _heads(features: Tensor, values: Tensor, ridge: float) -> Tensor:
    """(F, H, C) ridge fits of centered values (F, G, C) on centered features (G, H)."""
    phi = features - features.mean(0)
    y = values - values.mean(1, keepdim=True)
    gram = phi @ phi.T
    gram += ridge * gram.diagonal().mean().clamp_min(1e-300) * torch.eye(len(gram), dtype=gram.dtype)
    return torch.einsum("gh,fgc->fhc", torch.linalg.solve(gram, phi), y)


def fisher_distance(a: Array, b: Array) -> Array:
    """(F, F') Task2Vec's symmetric distance 1 - cos(a / (a + b), b / (a + b)) of Fisher vectors (F, U) and (F', U)."""
    total = a[:, None] + b[None]
    total = np.where(total > 0, total, 1.0)
    u, v = a[:, None] / total, b[None] / total
    norm = np.sqrt((u**2).sum(-1) * (v**2).sum(-1))
    return 1 - (u * v).sum(-1) / np.where(norm > 0, norm, 1.0)
