"""Do task embeddings find the anchors of a bank of 10,000 tasks faster than the values on the context do?"""

import time
from collections.abc import Callable

import numpy as np
import torch
from jsonargparse import auto_cli
from sklearn.decomposition import PCA
from torch import nn
from torch.func import functional_call, jacrev

from operant.relational import TaskBank

X = np.linspace(0, 20, 40)
GRID = torch.tensor(X[:, None] / 10 - 1)


def curves(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(F, Q) s sin(w x) exp(-g x) + t of parameters (w, g, s, t)."""
    return p[:, 2:3] * np.sin(p[:, :1] * x) * np.exp(-p[:, 1:2] * x) + p[:, 3:]


def train_probe(mean: np.ndarray) -> nn.Sequential:
    """A ReLU network trained on the mean task, which gives the gradients of training on all tasks."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)).double()
    adam = torch.optim.Adam(net.parameters())
    for _ in range(500):
        adam.zero_grad()
        nn.functional.mse_loss(net(GRID), torch.tensor(mean[:, None])).backward()
        adam.step()
    return net.requires_grad_(False)


def gradient_map(net: nn.Sequential) -> np.ndarray:
    """(G, G) metric of the paper's embedding: gradients J (h - y) have the inner products of J J^T."""
    slopes = jacrev(lambda w: functional_call(net, w, (GRID,)))(dict(net.named_parameters())).values()
    square, vectors = np.linalg.eigh(sum(np.einsum("gow,how->gh", *[v.flatten(2).numpy()] * 2) for v in slopes))
    return vectors * np.sqrt(np.maximum(square, 0))


def fisher(net: nn.Sequential) -> Callable[[np.ndarray], np.ndarray]:
    """(F, G) -> (F, U) Task2Vec: Fisher information of each hidden unit, the head fitted to each task by ridge."""
    body = net[:-1]
    phi = body(GRID) - body(GRID).mean(0)
    gram = phi @ phi.T + 1e-3 * (phi**2).sum(1).mean() * torch.eye(len(phi), dtype=phi.dtype)
    slopes = jacrev(lambda w: functional_call(body, w, (GRID,)))(dict(body.named_parameters()))
    pairs = [torch.einsum("ghui,gkui->uhk", j, j) for name, j in slopes.items() if "weight" in name]

    def embed(y: np.ndarray) -> np.ndarray:
        head = torch.tensor(y - y.mean(1, keepdims=True)) @ torch.linalg.solve(gram, phi)  # (F, H)
        layers = [torch.einsum("fh,uhk,fk->fu", head, m, head) for m in pairs]
        return torch.cat([v / v.norm(dim=1, keepdim=True).clamp_min(1e-300) for v in layers], 1).numpy()

    return embed


def error(anchors: np.ndarray, x: np.ndarray, y: np.ndarray, truth: np.ndarray, bank: np.ndarray) -> float:
    """RMSE over the domain, in standard deviations of the target, of s f + t with the best anchor on the context."""
    best = (np.inf, 0.0)
    for f in bank[anchors]:
        design = np.column_stack([np.interp(x, X, f), np.ones(len(x))])
        z, left, *_ = np.linalg.lstsq(design, y, rcond=None)
        best = min(best, (float(left[0]), float(np.sqrt(np.mean((z[0] * f + z[1] - truth) ** 2)) / truth.std())))
    return best[1]


def main(tasks: int = 10_000, targets: int = 100, seed: int = 0) -> None:
    """Print a table a context: milliseconds a target, median and 90th percentile of the error."""
    rng = np.random.default_rng(seed)
    values = curves(rng.uniform((0.4, 0.0, 0.5, -1.0), (1.0, 0.1, 1.5, 1.0), (tasks, 4)), X)
    bank, net = TaskBank.from_arrays([(X, v) for v in values]), train_probe(values.mean(0))
    metric, start = gradient_map(net), time.perf_counter()
    pca = PCA(16, svd_solver="full").fit(values @ metric)
    gradients, between = pca.transform(values @ metric), time.perf_counter()
    task2vec = fisher(net)
    information, end = task2vec(values), time.perf_counter()
    print(f"embedding the bank: gradients {between - start:.2f} s, Task2Vec {end - between:.2f} s")
    truth = curves(rng.uniform((0.4, 0.0, 2.0, -1.0), (1.0, 0.1, 3.0, 1.0), (targets, 4)), X)  # larger factors s
    ways = {
        "values on the context": lambda x, y: ((bank.values(x[:, None])[:, :, 0] - y) ** 2).sum(1),
        "probe gradients": lambda x, y: ((pca.transform(np.interp(X, x, y)[None] @ metric) - gradients) ** 2).sum(1),
        "Task2Vec": lambda x, y: ((task2vec(np.interp(X, x, y)[None]) - information) ** 2).sum(1),
    }
    for label, end in {"whole domain": 20.0, "first half": 10.0}.items():
        at = np.sort(rng.uniform(0, end, (targets, 8)), axis=1)
        for name, distance in ways.items():
            took, errors = [], []
            for x, t in zip(at, truth, strict=True):
                y, start = np.interp(x, X, t), time.perf_counter()
                anchors = np.argpartition(distance(x, y), 16)[:16]  # as many as an x-warp takes by value
                took.append(time.perf_counter() - start)
                errors.append(error(anchors, x, y, t, values))
            middle, high = np.quantile(errors, [0.5, 0.9])
            print(f"| {label} | {name} | {1e3 * np.median(took):.1f} | {middle:.3f} | {high:.3f} |", flush=True)


if __name__ == "__main__":
    auto_cli(main)
