r"""Recorded run: a ReLU network without biases on 5,000 digits, beside the linear network of the same shape.

Three layers, hidden width 1000, torch's default start times 0.01, full-batch gradient descent with learning rate 4 on the
mean squared error of one-hot labels. The parts:

``figure``    that run: loss, five largest singular values of each layer, sharpness at chosen steps
``linear``    the same start, data and rate without ReLU, in float64, which needs only the second moments of the data
``mean``, ``half``   a smaller copy (1,000 digits, width 200) for two normalisations of the loss: the mean over images and
              outputs, and half the sum over outputs; with the most negative curvature
``standin``   a few steps on the stand-in for the digits, which `replay` repeats wherever scikit-learn is installed

    python recorded/relu_mnist.py          # some minutes; can be interrupted and started again

With the environment variable ``EOSLIB_DATA`` the digits are taken from that folder, else they are downloaded.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from eoslib import data, recorded, training

RECORD = Path(__file__).resolve().with_suffix(".npz")
RATE, SCALE, SEED, CLASSES = 4.0, 0.01, 0, 10
SHIFT, SPREAD = 0.1307, 0.3081  # mean and deviation of MNIST's training pixels, as they are usually put in
IMAGES, WIDTH, STEPS = 5000, 1000, 160
CURVED = [0, 60, 80, 100, 101, 102, 103, 130, 160]
LINEAR_EVERY, LINEAR_FROM = 10, 60  # curvature from a step on at which the saddle has been left
SMALL = {  # loss, inputs, steps of the smaller copies
    "mean": ("mean", "standardised", 400),
    "half": ("half", "standardised", 400),
}
SMALL_IMAGES, SMALL_WIDTH, SMALL_EVERY = 1000, 200, 40
STANDIN_IMAGES, STANDIN_WIDTH, STANDIN_STEPS = 300, 60, 12
HEAD = 2  # steps of the full run that `replay` repeats where the digits are at hand
LOSSES = {
    "mean": lambda error: (error**2).mean(),
    "half": lambda error: (error**2).sum(1).mean() / 2,
}
SETTINGS = {
    "rate": RATE,
    "scale": SCALE,
    "seed": SEED,
    "images": IMAGES,
    "width": WIDTH,
    "steps": STEPS,
    "curved": CURVED,
    "linear": [LINEAR_EVERY, LINEAR_FROM],
    "small": [SMALL, SMALL_IMAGES, SMALL_WIDTH, SMALL_EVERY],
    "standin": [STANDIN_IMAGES, STANDIN_WIDTH, STANDIN_STEPS],
    "inputs": ["pixels / 255, minus", SHIFT, "over", SPREAD],
    "precision": "float32; the linear network float64",
}
READERS = ("load", "replay", "replay_standin", "digits")


def tensors(found, *, plain=False):
    """Inputs (n, 784) and one-hot labels (n, 10), float32."""
    X = found.images.reshape(len(found.images), -1) / 255
    X = torch.from_numpy((X if plain else (X - SHIFT) / SPREAD).astype(np.float32))
    return X, torch.nn.functional.one_hot(torch.from_numpy(found.labels.astype(np.int64)), CLASSES).float()


def network(width, *, relu=True, pixels=784):
    """The network at its start, drawn with a seed of its own."""
    draw, sizes, modules = torch.Generator().manual_seed(SEED), [pixels, width, width, CLASSES], []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layer = torch.nn.Linear(before, after, bias=False)
        with torch.no_grad():
            layer.weight.copy_(SCALE * (2 * torch.rand(layer.weight.shape, generator=draw) - 1) / before**0.5)
        modules += [layer, torch.nn.ReLU()] if relu else [layer]
    return torch.nn.Sequential(*modules[: 2 * 3 - 1])


def stacked(run):
    """Singular values of the three layers, (3, T, k)."""
    return np.stack([run.singular_values[name] for name in run.singular_values]).astype(np.float32)


def figure(checkpoint):
    """The paper's run."""
    X, Y = tensors(data.load("mnist", IMAGES))

    def loss(model):
        return ((model(X) - Y) ** 2).mean()

    run = training.descend(
        network(WIDTH),
        loss,
        RATE,
        STEPS,
        k=5,
        sharpness_at=CURVED,
        tolerance=3e-2,
        checkpoint=checkpoint,
        checkpoint_every=10,
    )
    kept = {"loss": run.loss, "sharpness": run.sharpness[:, 0], "residual": run.residuals[:, 0]}
    return kept | {"values": stacked(run)}


def moments(X, Y):
    """Second moments of the data, averaged over the images, in float64: inputs, labels with inputs, labels."""
    X, Y = X.double(), Y.double()
    return X.T @ X / len(X), Y.T @ X / len(X), float((Y**2).sum() / len(X))


def balanced_curvature(P, root, depth, k=2):
    r"""Largest eigenvalues of the Hessian at a balanced minimum of a linear network with end-to-end map `P`.

    `P` minimises the loss among all matrices, so no hidden layer is narrower than it needs: behind one that is, a residual
    is left, and the Hessian has a second term. For inputs of second moment C = root² and the mean over outputs, those of
    (2/10) Σ_l (PPᵀ)^{(L-l)/L} ⊗ root (PᵀP)^{(l-1)/L} root, l = 1…L.
    """
    U, s, Vt = np.linalg.svd(P, full_matrices=False)
    left = [(U * s ** (2 * (depth - l) / depth)) @ U.T for l in range(1, depth)] + [np.eye(len(P))]
    inner = Vt @ root
    right = [root @ root] + [(inner.T * s ** (2 * (l - 1) / depth)) @ inner for l in range(2, depth + 1)]

    def product(vector):
        Z = vector.reshape(P.shape)
        return sum(A @ (Z @ B) for A, B in zip(left, right, strict=True)).ravel()

    operator = LinearOperator((P.size, P.size), matvec=product, dtype=float)
    values = eigsh(operator, k=k, which="LA", return_eigenvectors=False, tol=1e-8, v0=np.ones(P.size))
    return 2 / len(P) * np.sort(values)[::-1]


def linear():
    """The linear network on the same data; every few steps the curvature that its end-to-end map predicts."""
    X, Y = tensors(data.load("mnist", IMAGES))
    inputs, cross, labels = moments(X, Y)
    values, vectors = np.linalg.eigh(inputs.numpy())
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T

    def product(model):
        return (model[2].weight @ model[1].weight) @ model[0].weight

    def loss(model):
        P = product(model)
        return ((P @ inputs * P).sum() - 2 * (P * cross).sum() + labels) / CLASSES

    def spectrum(model):
        return np.linalg.svd(product(model).numpy(), compute_uv=False)

    model, kept = network(WIDTH, relu=False).double(), {"loss": [], "values": [], "sharpness": [], "predicted": []}
    for step in range(0, STEPS + 1, LINEAR_EVERY):
        curved = [0] if step >= LINEAR_FROM else []
        options = {"sharpness_at": curved, "tolerance": 1e-2, "observe": {"product": spectrum}}
        run = training.descend(model, loss, RATE, LINEAR_EVERY, **options)
        keep = LINEAR_EVERY if step < STEPS else 1
        kept["loss"].append(run.loss[:keep]), kept["values"].append(run.observed["product"][:keep, :5])
        if curved:
            kept["sharpness"].append(run.sharpness[0, 0])
            with torch.no_grad():
                kept["predicted"].append(balanced_curvature(product(model).numpy(), root, 3))
        model = run.model
        if run.diverged:
            break
    return joined(kept, {"loss": 0, "values": 0})


def joined(kept, axis):
    """Stretches of a run put together along the given axes."""
    return {key: np.concatenate(v, axis[key]) if key in axis else np.array(v) for key, v in kept.items()}


def small(name):
    """A smaller copy with one normalisation of loss and inputs; extreme curvatures every few steps."""
    norm, prepared, steps = SMALL[name]
    X, Y = tensors(data.load("mnist", SMALL_IMAGES), plain=prepared == "plain")

    def loss(model):
        return LOSSES[norm](model(X) - Y)

    model, kept = network(SMALL_WIDTH), {"loss": [], "values": [], "sharpness": [], "lowest": [], "dead": []}
    for step in range(0, steps + 1, SMALL_EVERY):
        run = training.descend(model, loss, RATE, SMALL_EVERY, k=5)
        keep = SMALL_EVERY if step < steps else 1
        kept["loss"].append(run.loss[:keep]), kept["values"].append(stacked(run)[:, :keep])
        with torch.no_grad():
            kept["dead"].append(float((model[:4](X) <= 0).all(1).float().mean()))
        flat = kept["dead"][-1] == 1  # no image passes: the loss is constant
        for key in ("sharpness", "lowest"):
            options = {"smallest": key == "lowest", "tolerance": 2e-2}
            kept[key].append(0.0 if flat else training.sharpness(model, loss, **options).values[0])
        model = run.model
        if run.diverged:
            break
    return joined(kept, {"loss": 0, "values": 1})


def standin():
    """A few steps on the stand-in for the digits, with everything the long run uses."""
    X, Y = tensors(data.stand_in("mnist", STANDIN_IMAGES))
    net = network(STANDIN_WIDTH)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 10  # leaves the saddle within these steps
    run = training.descend(
        net, lambda m: ((m(X) - Y) ** 2).mean(), RATE, STANDIN_STEPS, k=5, sharpness_every=4, tolerance=1e-3
    )
    return {"loss": run.loss, "values": stacked(run), "sharpness": run.sharpness[:, 0]}


def digits():
    """The digits of the record if they are at hand without a download, else ``None``."""
    found = data.load("mnist", IMAGES, download=False)
    return None if found.stand_in else found


def load(path=RECORD):
    """The record: arrays named ``<part>/<quantity>``, and the dictionary ``about``."""
    return recorded.load(path, settings=SETTINGS)


def replay_standin(record):
    """Largest relative differences of loss, singular values and sharpness on the stand-in."""
    again = standin()
    return {key: float(np.abs(again[key] / record[f"standin/{key}"] - 1).max()) for key in again}


def replay(record):
    """Largest relative difference of the first losses of the full run, or ``None`` without its digits."""
    found = digits()
    if found is None or _digest(found) != record["about"]["data"]["mnist"]["arrays"]:
        return None
    X, Y = tensors(found)
    run = training.descend(network(WIDTH), lambda m: ((m(X) - Y) ** 2).mean(), RATE, HEAD)
    return float(np.abs(run.loss / record["figure/loss"][: HEAD + 1] - 1).max())


def _digest(found):
    return hashlib.sha256(found.images.tobytes() + found.labels.tobytes()).hexdigest()


def main():
    """Do the parts that have not been done, then write the record."""
    found = data.load("mnist", IMAGES)
    source = {"source": found.source, "file": found.sha256, "arrays": _digest(found), "stand_in": found.stand_in}
    place = recorded.folder(RECORD, SETTINGS)
    jobs = {"linear": linear, "standin": standin} | {name: partial(small, name) for name in SMALL}
    jobs |= {"figure": partial(figure, place / "figure.checkpoint")}
    parts = recorded.collect(RECORD, jobs, settings=SETTINGS)
    seconds = sum(float(part.pop("seconds")) for part in parts.values())
    arrays = {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}
    recorded.save(RECORD, SETTINGS, seconds, arrays, packages=("numpy", "scipy", "torch"), data={"mnist": source})


if __name__ == "__main__":
    main()
