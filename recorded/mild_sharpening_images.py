r"""Recorded run: the sharpness of a two-layer network on n CIFAR-10 images, at fixed rates and at a rate kept small.

The network is x -> W2 relu(W1 x + b1) + b2 with `WIDTH` hidden units; its loss is the squared error of the one-hot labels,
summed over the ten outputs and averaged over images, times one half. Weights and biases are Gaussian with variance
``ALPHA**2 / inputs``. Pixels are standardised channel by channel with the mean and spread of all images at hand.

What the network can see of n < 3072 images is the n-dimensional space they span, and the law of Gaussian weights is the
same in any orthonormal basis of it. So for n < 3072 the rows of K^(1/2) serve as inputs, where K holds the n^2 inner
products of the images: the same problem, exactly, with n inputs in place of 3072. K of the smallest set is part of the
record, so that its runs can be replayed without the images.

Gradients and Hessian-vector products are written out by hand, in float32.

    EOSLIB_DATA=folder python recorded/mild_sharpening_images.py    # under an hour; can be interrupted and started again
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from eoslib import data, recorded

RECORD = Path(__file__).resolve().with_suffix(".npz")
SIZES = (100, 200, 1000, 2000, 5000)
SEEDS = (0, 1, 2)
THRESHOLDS = (40, 120)  # 2 / rate
WIDTH = 50
ALPHA = 0.01
FRACTION = 0.5  # of 1 / sharpness: the step of the runs that follow gradient flow
STOP = {100: 0.005, 200: 0.005, 1000: 0.01, 2000: 0.15}  # loss at which a flow ends
TIME = {100: 35, 200: 35, 1000: 60, 2000: 45, 5000: 30}  # rate times steps of the runs at a fixed rate
LONGEST = 60_000  # steps of a flow
ENOUGH = 0.001  # loss at which a run at a fixed rate ends early
TOLERANCE = 1e-3  # of the sharpness, relative
WIDTHS = (25, 100, 200)  # besides WIDTH, for the smaller sets
SCALES = (0.1, 0.3, 1.0)  # besides ALPHA, likewise
SOURCE = "cifar10 (JPEG re-encoded)"
LEFT_OUT = ((1000, 2), (2000, 1), (2000, 2))  # size and seed of flows that would take too long
LOOK = 20  # steps between two looks at the sharpness at a fixed rate; at most so many (times two) along a flow


class Network:
    """The two-layer network with its data: loss, gradient, Hessian-vector product, sharpness."""

    def __init__(self, inputs, targets, seed, *, width=WIDTH, scale=ALPHA, dtype=np.float32):
        rng = np.random.default_rng(seed)
        n, d = inputs.shape
        shapes = ((width, d), (width,), (targets.shape[1], width), (targets.shape[1],))
        spread = scale / np.sqrt([d if n > d else FULL, FULL, width, width])
        # biases first, so that their draws do not depend on the number of inputs
        draws = {i: spread[i] * rng.standard_normal(shapes[i]) for i in (1, 3, 2, 0)}
        self.parameters = [draws[i].astype(dtype) for i in range(4)]
        self.inputs, self.targets = inputs.astype(dtype), targets.astype(dtype)
        self.rng, self.vector = np.random.default_rng(seed + 1000), None
        self.gradient()

    def gradient(self):
        """The gradient, four arrays; keeps what `product` needs, and the loss."""
        w1, b1, w2, b2 = self.parameters
        n = len(self.inputs)
        hidden = self.inputs @ w1.T + b1
        self.active = (hidden > 0).astype(hidden.dtype)
        self.hidden = hidden * self.active
        self.residual = (self.hidden @ w2.T + b2 - self.targets) / n
        self.loss = 0.5 * n * float(np.sum(self.residual.astype(float) ** 2))
        back = (self.residual @ w2) * self.active
        return [back.T @ self.inputs, back.sum(0), self.residual.T @ self.hidden, self.residual.sum(0)]

    def product(self, direction):
        """The Hessian at the point of the last `gradient`, times a direction."""
        v1, c1, v2, c2 = direction
        moved = self.active * (self.inputs @ v1.T + c1)
        change = (moved @ self.parameters[2].T + self.hidden @ v2.T + c2) / len(self.inputs)
        back = (change @ self.parameters[2] + self.residual @ v2) * self.active
        return [
            back.T @ self.inputs,
            back.sum(0),
            change.T @ self.hidden + self.residual.T @ moved,
            change.sum(0),
        ]

    def sharpness(self, most=60):
        """Largest eigenvalue by Lanczos, and its residual; starts from the last vector plus a random one."""
        self.gradient()
        size = sum(a.size for a in self.parameters)
        dtype = self.inputs.dtype
        q = self.rng.standard_normal(size).astype(dtype)
        q /= np.linalg.norm(q)
        if self.vector is not None:
            q = self.vector + 0.3 * q
        basis, diagonal, off = [q / np.linalg.norm(q)], [], []
        while True:
            w = _flat(self.product(self._split(basis[-1])))
            diagonal.append(float(w @ basis[-1]))
            for _ in range(2):
                for b in basis:
                    w -= (w @ b) * b
            length = float(np.linalg.norm(w))
            values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
            residual = length * abs(vectors[-1, -1])
            if len(basis) == most or (len(basis) > 5 and residual < TOLERANCE * values[-1]):
                break
            off.append(length)
            basis.append(w / length)
        self.vector = sum(dtype.type(c) * b for c, b in zip(vectors[:, -1], basis))
        return float(values[-1]), residual

    def step(self, rate):
        """One step of gradient descent."""
        for parameter, slope in zip(self.parameters, self.gradient()):
            parameter -= parameter.dtype.type(rate) * slope

    def _split(self, vector):
        ends = np.cumsum([a.size for a in self.parameters])[:-1]
        return [part.reshape(a.shape) for part, a in zip(np.split(vector, ends), self.parameters)]


FULL = 3 * 32 * 32  # inputs of the network


def _flat(parts):
    return np.concatenate([part.ravel() for part in parts])


def images(n):
    """Standardised images (n, 3072) and one-hot labels (n, 10); the mean and spread are those of all images."""
    everything = data.load("cifar10", download=False)
    if everything.source != SOURCE:
        raise ValueError(f"EOSLIB_DATA: got {everything.source!r}, needs the folder of the {SOURCE!r} of this record")
    pixels, labels = everything.images, everything.labels
    flat = (pixels[:n] - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    return flat.reshape(n, -1), np.eye(10)[labels[:n]]


def reduced(inputs):
    """Inputs with the same inner products and at most as many columns as rows."""
    return root(inputs @ inputs.T) if len(inputs) < inputs.shape[1] else inputs


def root(gram):
    """The symmetric square root of a matrix of inner products."""
    values, vectors = np.linalg.eigh(gram)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def flow(n, seed, *, fraction=FRACTION, width=WIDTH, scale=ALPHA, stop=None):
    """Descent with steps of `fraction` / sharpness until the loss is `stop`: close to gradient flow."""
    inputs, targets = images(n)
    network = Network(reduced(inputs), targets, seed, width=width, scale=scale)
    rows, clock, wait, last = [], 0.0, 1, None
    step = 0
    while True:
        value, residual = network.sharpness()
        rows.append((step, clock, network.loss, value, residual))
        if network.loss <= (STOP[n] if stop is None else stop) or step >= LONGEST:
            return _columns(rows)
        change = abs(value / last - 1) if last else 1.0
        wait, last = (max(1, wait // 2) if change > 0.05 else min(2 * wait, 2 * LOOK) if change < 0.02 else wait), value
        for _ in range(wait):
            network.step(fraction / value)
        step, clock = step + wait, clock + wait * fraction / value


def descend(n, seed, threshold, *, width=WIDTH, scale=ALPHA, steps=None):
    """Descent at the fixed rate 2 / `threshold`."""
    inputs, targets = images(n)
    return fixed(Network(reduced(inputs), targets, seed, width=width, scale=scale), threshold, steps or TIME[n] * threshold // 2)


def fixed(network, threshold, steps, look=LOOK):
    """Loss and sharpness of a network every `look` steps at the rate 2 / `threshold`."""
    rows = []
    for step in range(steps + 1):
        if step % look == 0:
            value, residual = network.sharpness()
            rows.append((step, step * 2 / threshold, network.loss, value, residual))
            if not np.isfinite(network.loss) or network.loss > 100 or network.loss < ENOUGH:
                break
        network.step(2 / threshold)
    return _columns(rows)


def _columns(rows):
    names = ("step", "time", "loss", "sharpness", "residual")
    return {name: np.array(column) for name, column in zip(names, zip(*rows))}


def linear(n):
    """Of the balanced two-layer linear network that interpolates n images, without biases: sharpness, largest
    singular value; and the largest eigenvalue of the inner products, over n.
    """
    inputs, targets = images(n)
    inputs = reduced(inputs)
    values = np.linalg.eigvalsh(inputs)  # the root of the Gram matrix is symmetric
    return {
        "sharpness": np.array(interpolating_sharpness(inputs, targets)),
        "strength": np.linalg.norm(np.linalg.lstsq(inputs, targets, rcond=None)[0], 2),
        "brightness": values[-1] ** 2 / n,
    }


def interpolating_sharpness(inputs, targets, steps=2000):
    r"""Sharpness where W2 W1 is the interpolant of least norm, W1 and W2 are balanced, for the loss of this script.

    With B = P S Q^T the interpolant and J the derivative of the outputs, the non-zero eigenvalues of the Hessian are those of
    (1/n) J J^T: R -> (1/n) (X X^T R P S P^T + X Q S Q^T X^T R), applied to n x 10 arrays. Power iteration.
    """
    B = np.linalg.lstsq(inputs, targets, rcond=None)[0].T
    P, s, Qt = np.linalg.svd(B, full_matrices=False)
    left, right = (P * s) @ P.T, inputs @ Qt.T
    R, value = np.random.default_rng(0).standard_normal(targets.shape), 0.0
    for _ in range(steps):
        R /= np.linalg.norm(R)
        new = (inputs @ (inputs.T @ R) @ left + (right * s) @ (right.T @ R)) / len(inputs)
        last, value = value, float((new * R).sum())
        if abs(value - last) < 1e-10 * value:
            return value
        R = new
    raise RuntimeError(f"power iteration: {value} after {steps} steps, still changing")


def settings():
    """Everything that determines the record."""
    return {
        "sizes": SIZES, "seeds": SEEDS, "thresholds": THRESHOLDS, "width": WIDTH, "alpha": ALPHA, "fraction": FRACTION,
        "stop": {str(n): loss for n, loss in STOP.items()}, "time": {str(n): time for n, time in TIME.items()},
        "longest": LONGEST, "enough": ENOUGH, "left_out": LEFT_OUT, "tolerance": TOLERANCE, "look": LOOK, "widths": WIDTHS, "scales": SCALES,
        "precision": "float32", "images": SOURCE,
    }  # fmt: skip


def jobs():
    """Name and function of every part."""
    parts = {f"flow-{n}-{seed}": partial(flow, n, seed) for seed in SEEDS for n in STOP if (n, seed) not in LEFT_OUT}
    parts |= {f"rate-{n}-{t}": partial(descend, n, 0, t) for t in THRESHOLDS for n in SIZES}
    for n in SIZES[:2]:  # is the flow a flow, and do the width and the scale matter?
        parts[f"finer-{n}"] = partial(flow, n, 0, fraction=FRACTION / 4)
        parts |= {f"width-{n}-{w}": partial(flow, n, 0, width=w) for w in WIDTHS}
        parts |= {f"scale-{n}-{s:g}": partial(flow, n, 0, scale=s) for s in SCALES}
    return parts | {f"linear-{n}": partial(linear, n) for n in SIZES if n < FULL}


READERS = ("load", "main")


def load(path=RECORD):
    """The record: part to a dict of its columns; under "gram" and "labels" those of the smallest set."""
    file = recorded.load(path, settings=settings())
    parts = {name: {} for name in jobs()}
    for key, array in file.items():
        if "/" in key:
            name, column = key.split("/")
            parts[name][column] = array
    return parts | {key: file[key] for key in ("gram", "labels", "about")}


def main():
    """Make the parts that are not there, then write the record."""
    parts = recorded.collect(RECORD, jobs(), settings=settings())
    seconds = sum(float(part.pop("seconds")) for part in parts.values())
    arrays = {f"{name}/{column}": array for name, part in parts.items() for column, array in part.items()}
    inputs, targets = images(SIZES[0])
    arrays |= {"gram": inputs @ inputs.T, "labels": targets.argmax(1)}
    source = data.load("cifar10", download=False)
    note = {"cifar10": {"source": source.source, "sha256": source.sha256}}
    recorded.save(RECORD, settings(), seconds, arrays, packages=("numpy",), data=note)


if __name__ == "__main__":
    main()
