"""The records of the ReLU networks: they replay, a changed one does not, and their closed form is that of the library."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recorded"))

import relu_layers as layers
import relu_mnist as mnist

from eoslib import data, hessian, training


@pytest.fixture(scope="module")
def record():
    return mnist.load()


def test_the_part_on_the_stand_in_replays_and_a_changed_one_does_not(record):
    found = mnist.replay_standin(record)
    # float32 rounding, 1e-7 a step, grows by the gain of leaving the saddle, a few hundred
    assert found["loss"] < 1e-4 and found["values"] < 1e-3 and found["sharpness"] < 2e-2
    changed = record | {"standin/loss": record["standin/loss"] * 1.001}
    assert mnist.replay_standin(changed)["loss"] > 5e-4


def test_replays_say_when_the_data_are_not_at_hand(record, monkeypatch, tmp_path):
    monkeypatch.delenv("EOSLIB_DATA", raising=False)
    monkeypatch.setenv("EOSLIB_CACHE", str(tmp_path))
    assert mnist.replay(record) is None and layers.replay(layers.load(), "cifar10") is None


def test_the_records_are_of_real_images_and_of_the_papers_size(record):
    about = record["about"]
    assert about["data"]["mnist"]["source"] == "mnist" and not about["data"]["mnist"]["stand_in"]
    assert (about["settings"]["images"], about["settings"]["width"], about["settings"]["rate"]) == (5000, 1000, 4.0)
    assert record["figure/values"].shape == (3, mnist.STEPS + 1, 5)
    assert np.all(record["figure/residual"] <= 3e-2 * record["figure/sharpness"] * 1.001)
    deep = layers.load()
    assert deep["about"]["data"]["cifar10"]["source"] == "cifar10 (JPEG re-encoded)"
    for name in layers.RATES:
        assert deep[f"{name}/loss"].shape == (layers.STEPS[name] + 1,)
        # what is kept of the singular values twice is the same
        assert np.array_equal(deep[f"{name}/top/1"][-layers.WINDOW :], deep[f"{name}/window/1"][:, : layers.TOP])


def test_for_white_inputs_the_curvature_is_that_of_the_matrix_factorisation():
    values, depth, width = (2.0, 1.5, 0.5), 3, 6
    P = np.zeros((width, width))
    P[range(3), range(3)] = values
    found = mnist.balanced_curvature(P, np.eye(width), depth, k=3)
    wanted, counts = hessian.spectrum_at_minimum(values, depth=depth, width=width, scale=0.01, init="balanced")
    wanted = np.repeat(wanted, counts)[:3]
    assert np.allclose(found, 2 / width * wanted, rtol=1e-7)  # the mean over `width` outputs has the factor 2 / width


def test_the_moments_give_the_loss_of_the_data():
    X, Y = mnist.tensors(data.stand_in("mnist", 120))
    net = mnist.network(15, relu=False).double()
    inputs, cross, labels = mnist.moments(X, Y)
    with torch.no_grad():
        P = net[2].weight @ net[1].weight @ net[0].weight
        short = ((P @ inputs * P).sum() - 2 * (P * cross).sum() + labels) / mnist.CLASSES
        assert np.isclose(float(short), float(((net(X.double()) - Y.double()) ** 2).mean()), rtol=1e-12)


def test_a_run_of_the_script_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    X, Y = mnist.tensors(data.stand_in("mnist", 80))
    whole = training.descend(mnist.network(12), lambda m: ((m(X) - Y) ** 2).mean(), 1.0, 30, k=3)
    looks = []

    def failing(model):
        looks.append(1)
        if len(looks) > 20:
            raise KeyboardInterrupt
        return ((model(X) - Y) ** 2).mean()

    path = tmp_path / "run.checkpoint"
    options = {"k": 3, "checkpoint": path, "checkpoint_every": 6}
    with pytest.raises(KeyboardInterrupt):
        training.descend(mnist.network(12), failing, 1.0, 30, **options)
    assert path.exists()
    again = training.descend(mnist.network(12), lambda m: ((m(X) - Y) ** 2).mean(), 1.0, 30, **options)
    assert np.array_equal(again.loss, whole.loss) and not path.exists()
