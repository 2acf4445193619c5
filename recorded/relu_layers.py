r"""Recorded run: which singular values of a ReLU network move while its loss oscillates?

Four layers of width 200 with ReLU between them and biases, torch's default start, full-batch gradient descent on the mean
squared error (mean over images and outputs) of one-hot labels; once on digits and once on colour images. The loss and all
singular values of the four weight matrices are recorded, the sharpness every 20 steps.

    python recorded/relu_layers.py          # a few minutes; can be interrupted and started again

With the environment variable ``EOSLIB_DATA`` the data are taken from that folder, else they are downloaded. `load`
reads the record, `replay` repeats the first steps if the same data are at hand.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch

from eoslib import data, recorded, training

RECORD = Path(__file__).resolve().with_suffix(".npz")
IMAGES = 10_000
WIDTH, LAYERS, CLASSES = 200, 4, 10
RATES = {"mnist": 4.0, "cifar10": 1.0}
STEPS = {"mnist": 400, "cifar10": 240}
WINDOW, TOP, EVERY = 120, 10, 20
SEED = 0
HEAD = 3  # steps that `replay` repeats
SETTINGS = {
    "images": IMAGES,
    "width": WIDTH,
    "layers": LAYERS,
    "rates": RATES,
    "steps": STEPS,
    "window": WINDOW,
    "top": TOP,
    "every": EVERY,
    "seed": SEED,
    "loss": "mean over images and outputs",
    "inputs": "pixels / 255; of the colour images each channel shifted and scaled to mean 0, deviation 1",
    "precision": "float32",
}
REMARKS = {
    "processor time": "without the first 160 steps on CIFAR-10, about 150 s: the run was interrupted and went on from its checkpoint",
    "steps": "the number of steps on CIFAR-10 was lowered from 400 to 240 while it ran; the run on MNIST did not change",
}
READERS = ("load", "replay", "REMARKS")


def inputs(name):
    """Inputs (n, pixels), one-hot labels (n, 10), and what they are."""
    found = data.load(name, IMAGES)
    X = found.images.astype(np.float64) / 255
    if X.ndim == 4:
        X = (X - X.mean(axis=(0, 1, 2))) / X.std(axis=(0, 1, 2))
    X = torch.from_numpy(X.reshape(len(X), -1).astype(np.float32))
    Y = torch.nn.functional.one_hot(torch.from_numpy(found.labels.astype(np.int64)), CLASSES).float()
    digest = hashlib.sha256(found.images.tobytes() + found.labels.tobytes()).hexdigest()
    return X, Y, {"source": found.source, "file": found.sha256, "arrays": digest, "stand_in": found.stand_in}


def network(pixels):
    """The network at its start: torch's default, uniform of width 1 / sqrt(inputs), drawn with a seed of its own."""
    draw, sizes, modules = torch.Generator().manual_seed(SEED), [pixels, *[WIDTH] * (LAYERS - 1), CLASSES], []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layer = torch.nn.Linear(before, after)
        with torch.no_grad():
            for parameter in (layer.weight, layer.bias):
                parameter.copy_((2 * torch.rand(parameter.shape, generator=draw) - 1) / before**0.5)
        modules += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


def descend(X, Y, rate, steps, **options):
    """The run of one data set."""
    return training.descend(network(X.shape[1]), lambda m: ((m(X) - Y) ** 2).mean(), rate, steps, **options)


def simulate(name, checkpoint):
    """Everything that is kept of one run; the singular values in full over the last `WINDOW` steps."""
    X, Y, source = inputs(name)
    run = descend(
        X,
        Y,
        RATES[name],
        STEPS[name],
        k=WIDTH,
        sharpness_every=EVERY,
        tolerance=1e-2,
        checkpoint=checkpoint,
        checkpoint_every=20,
    )
    kept = {"loss": run.loss, "sharpness": run.sharpness[:, 0], "residual": run.residuals[:, 0]}
    for number, values in enumerate(run.singular_values.values()):
        kept[f"window/{number}"] = values[-WINDOW:].astype(np.float32)
        kept[f"top/{number}"] = values[:, :TOP].astype(np.float32)
    return kept | {"source": np.array([source["source"], source["file"], source["arrays"]])}


def load(path=RECORD):
    """The record: arrays named ``<data set>/<quantity>``, and the dictionary ``about``."""
    return recorded.load(path, settings=SETTINGS)


def replay(record, name):
    """Largest relative difference of the first losses, or ``None`` if the data of the record are not at hand."""
    found = data.load(name, IMAGES, download=False)
    digest = hashlib.sha256(found.images.tobytes() + found.labels.tobytes()).hexdigest()
    if digest != record["about"]["data"][name]["arrays"]:
        return None
    X, Y, _ = inputs(name)
    again = descend(X, Y, RATES[name], HEAD)
    return float(np.abs(again.loss / record[f"{name}/loss"][: HEAD + 1] - 1).max())


def main():
    """Do the runs that have not been done, then write the record."""
    place = recorded.folder(RECORD, SETTINGS)
    jobs = {name: partial(simulate, name, place / f"{name}.checkpoint") for name in RATES}
    parts = recorded.collect(RECORD, jobs, settings=SETTINGS)
    arrays, sources = {}, {}
    for name, part in parts.items():
        sources[name] = dict(zip(("source", "file", "arrays"), map(str, part.pop("source")), strict=True))
        arrays |= {f"{name}/{key}": value for key, value in part.items() if key != "seconds"}
    seconds = sum(float(part["seconds"]) for part in parts.values())
    recorded.save(RECORD, SETTINGS, seconds, arrays, packages=("numpy", "torch"), data=sources, remarks=REMARKS)


if __name__ == "__main__":
    main()
