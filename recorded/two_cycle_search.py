r"""Recorded run: which states of period two does gradient descent on 2 x 2 deep linear networks have?

From random weights around the minimum of the target diag(1, k), a trust-region Newton method solves
"two steps of descent return to where they started". Fixed points are dropped. Kept are the distinct orbits, told apart by the
singular values of the products in the two phases, with the weights of one representative each.

    python recorded/two_cycle_search.py          # about two minutes; can be interrupted and started again

`load` reads the record, `verify` checks every orbit in it again, `solve` repeats one start.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from eoslib import hessian, network, recorded

HERE = Path(__file__).resolve().parent
RECORD = HERE / "two_cycle_search.npz"
STARTS = {2: 150, 3: 150, 4: 120, 6: 80}  # random starts per setting, by depth
RATIOS = (0.9, 0.75, 0.6)  # second singular value of the target; the first is 1
RATES = (2.05, 2.2, 2.35, 2.5)  # eta times L, the sharpness of the first mode
SPREAD = 0.5  # standard deviation of the starting entries around the minimum
SETTINGS = {
    "starts": STARTS,
    "ratios": RATIOS,
    "q": RATES,
    "spread": SPREAD,
    "seed": [["depth", "100 ratio", "100 q", "number of the start"]],
}
READERS = ("load", "verify")


def settings():
    """All (depth, ratio, q), in order."""
    return [(depth, ratio, q) for depth in STARTS for ratio in RATIOS for q in RATES]


def step(W, M, eta):
    """One update of the weights (L, 2, 2)."""
    return W - eta * network.gradient(W, M)


def jacobian(W, M, eta):
    """Linearisation of two steps at `W`."""
    eye = np.eye(W.size)
    return (eye - eta * hessian.dense(step(W, M, eta), M)) @ (eye - eta * hessian.dense(W, M))


def multiplier(W, M, eta):
    """Largest modulus of the multipliers of the orbit through `W`."""
    return float(np.abs(np.linalg.eigvals(jacobian(W, M, eta))).max())


def phases(W, M, eta):
    """Singular values of the product in the two phases, (2, 2)."""
    return np.linalg.svd(np.stack([network.product(W), network.product(step(W, M, eta))]), compute_uv=False)


def solve(depth, ratio, q, number):
    """The orbit that start `number` of a setting leads to: weights (L, 2, 2), or ``None`` if it fails or is a fixed point."""
    rng = np.random.default_rng([depth, round(100 * ratio), round(100 * q), number])
    M, eta = np.diag([1.0, ratio]), q / depth
    shape = (depth, 2, 2)
    start = np.diag([1.0, ratio ** (1 / depth)]) + SPREAD * rng.standard_normal(shape)

    def returned(x):
        W = x.reshape(shape)
        return (step(step(W, M, eta), M, eta) - W).ravel()

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = least_squares(
                returned,
                start.ravel(),
                jac=lambda x: jacobian(x.reshape(shape), M, eta) - np.eye(x.size),
                xtol=1e-15,
                ftol=1e-15,
                gtol=1e-15,
                max_nfev=100,
            )
    except (ValueError, np.linalg.LinAlgError):  # a trial point overflowed
        return None
    W = found.x.reshape(shape)
    if not np.abs(found.fun).max() < 1e-9 or np.abs(step(W, M, eta) - W).max() < 1e-5:
        return None
    return W


def search(depth, ratio, q):
    """Distinct orbits of one setting: weights (n, L, 2, 2), and how often each was found (n,)."""
    M, eta = np.diag([1.0, ratio]), q / depth
    orbits = {}
    for number in range(STARTS[depth]):
        W = solve(depth, ratio, q, number)
        if W is not None:
            key = tuple(np.sort(phases(W, M, eta), axis=None).round(4))
            orbits.setdefault(key, [W, 0])[1] += 1
    weights = np.array([orbit[0] for orbit in orbits.values()]).reshape(-1, depth, 2, 2)
    return {"weights": weights, "counts": np.array([orbit[1] for orbit in orbits.values()], dtype=int)}


def load(path=RECORD):
    """The record: list of ``(depth, ratio, q, weights (n, L, 2, 2), counts (n,))``."""
    file = recorded.load(path, settings=SETTINGS)
    return [(*setting, file[f"weights/{_name(setting)}"], file[f"counts/{_name(setting)}"]) for setting in settings()]


def verify(entry):
    """For each orbit of an entry of `load`: error of return, motion, largest off-diagonal entry, largest multiplier.

    The motion is the least distance between a singular value of the product in one phase and one in the other: it is zero if one
    mode rests. (Sorted lists would not tell, as a resting value changes its rank when a moving one passes it.)
    """
    depth, ratio, q, weights, _ = entry
    M, eta = np.diag([1.0, ratio]), q / depth
    rows = []
    for W in weights:
        one, two = phases(W, M, eta)
        off = max(np.abs(network.product(X)[[0, 1], [1, 0]]).max() for X in (W, step(W, M, eta)))
        returned = np.abs(step(step(W, M, eta), M, eta) - W).max()
        rows.append((returned, np.abs(one[:, None] - two).min(), off, multiplier(W, M, eta)))
    return rows


def _name(setting):
    return "depth{}-ratio{}-q{}".format(*setting)


def main():
    """Search the settings that have not been searched, then write the record."""
    jobs = {_name(setting): partial(search, *setting) for setting in settings()}
    parts = recorded.collect(RECORD, jobs, settings=SETTINGS)
    arrays = {f"{key}/{name}": part[key] for name, part in parts.items() for key in ("weights", "counts")}
    seconds = sum(float(part["seconds"]) for part in parts.values())
    recorded.save(RECORD, SETTINGS, seconds, arrays, packages=("numpy", "scipy"))


if __name__ == "__main__":
    main()
