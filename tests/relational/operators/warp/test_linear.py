"""The closed form of transformations without a warp: against dense Gaussian formulas, and the iterated road."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from operant.relational.bank.tasks import TaskBank
from operant.relational.operators.warp.linear import solve
from operant.relational.operators.warp.parameters import Layout
from operant.relational.operators.warp.refine import Candidates, refine
from operant.relational.transforms import Transformation

X = np.linspace(-1, 1, 7)[:, None]


def setting(form: str, seed: int = 0) -> tuple[TaskBank, Layout, dict[str, np.ndarray]]:
    """A bank of two outputs, and a target's values with priors for three candidates."""
    rng = np.random.default_rng(seed)
    bank = TaskBank.from_arrays([(X, np.column_stack([np.sin(k * X[:, 0]), X[:, 0] ** k])) for k in (1, 2, 3, 4)])
    bank = bank.scaled(bank.scaling)
    layout = Layout.of(Transformation.parse(form), bank)
    given = {
        "y": rng.normal(size=(len(X), 2)),
        "mean": rng.normal(size=(3, layout.size)),
        "sd": rng.uniform(0.3, 2, size=(3, layout.size)),
        "floor": np.array([0.05, 0.02]),
    }
    return bank, layout, given


ANCHOR = np.array([2, 0, 3])
FORMS = ("shift", "scale", "shift * scale", "shift * scale * trend")


@pytest.mark.parametrize("form", FORMS)
def test_the_posterior_and_the_evidence_are_those_of_a_dense_gaussian(form: str) -> None:
    """With the noise known: theta, covariance and log marginal likelihood from matrices of full size."""
    bank, layout, given = setting(form)
    noise = np.array([0.3, 0.1])
    found = solve(bank, layout, X, anchor=ANCHOR, noise=noise, **given)
    sigma = np.hypot(noise, given["floor"])
    scores = []
    for b, i in enumerate(ANCHOR):
        columns, offset = layout.design(bank.curve(int(i))(X)[None], X)
        place = layout.linear(np.arange(layout.size, dtype=np.float64)).astype(int)
        design = np.zeros((len(X), 2, layout.size))
        for output in range(2):
            design[:, output, place[output]] = columns[0, :, output]
        a, s = design.reshape(-1, layout.size), np.tile(sigma, len(X))
        r = (given["y"] - offset[0]).reshape(-1)
        precision = a.T @ (a / s[:, None] ** 2) + np.diag(given["sd"][b] ** -2.0)
        covariance = np.linalg.inv(precision)
        theta = covariance @ (a.T @ (r / s**2) + given["mean"][b] / given["sd"][b] ** 2)
        np.testing.assert_allclose(found.theta[b], theta, rtol=1e-9)
        np.testing.assert_allclose(found.covariance[b], covariance, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.residual[b].reshape(-1), r - a @ theta, atol=1e-10)
        np.testing.assert_allclose(found.jacobian[b].reshape(-1, layout.size), a)
        spread = a @ np.diag(given["sd"][b] ** 2) @ a.T + np.diag(s**2)
        scores.append(multivariate_normal(a @ given["mean"][b], spread).logpdf(r))
    np.testing.assert_allclose(found.evidence, np.array(scores) + len(X) * np.log(2 * np.pi), rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_the_iterated_road_comes_to_the_same(form: str) -> None:
    """Levenberg-Marquardt with the noise known, points left out by ``counts`` included."""
    bank, layout, given = setting(form, 1)
    counts = np.array([[1, 1, 1, 0, 1, 1, 1], [1, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1]], dtype=bool)
    for mask in (None, counts):
        also = {"anchor": ANCHOR, "noise": np.array([0.3, 0.1]), "counts": mask, **given}
        direct = solve(bank, layout, X, **also)
        slow = refine(bank, layout, X, theta=np.zeros_like(given["mean"]), steps=200, **also)
        for name in ("theta", "covariance", "residual", "jacobian", "noise", "evidence"):
            np.testing.assert_allclose(getattr(direct, name), getattr(slow, name), rtol=1e-6, atol=1e-8, err_msg=name)


def test_unknown_noise_is_a_fixed_point() -> None:
    """sigma^2 = (sum r^2 + floor^2) / (P - tr H + 1) holds for what comes out, within the step that is allowed."""
    bank, layout, given = setting("shift * scale", 2)
    found: Candidates = solve(bank, layout, X, anchor=ANCHOR, **given)
    hat = np.einsum("bpct,btu,bpcu->bc", found.jacobian, found.covariance, found.jacobian) / found.noise**2
    again = np.sqrt(((found.residual**2).sum(1) + given["floor"] ** 2) / (len(X) - hat + 1))
    np.testing.assert_allclose(again, found.noise, rtol=0.06)


def test_fewer_points_than_entries_leave_the_prior_where_nothing_is_seen() -> None:
    """One point, three entries an output: finite, and two directions keep the prior's variance."""
    bank, layout, given = setting("shift * scale * trend", 3)
    given["y"] = given["y"][:1]
    found = solve(bank, layout, X[:1], anchor=ANCHOR, noise=np.full(2, 1e-3), **given)
    white = found.covariance / (given["sd"][:, :, None] * given["sd"][:, None])
    np.testing.assert_allclose(np.linalg.eigvalsh(white)[:, -4:], 1.0, rtol=1e-6)
    assert np.isfinite(found.evidence).all()
