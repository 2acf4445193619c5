"""The recorded run of the rounding-seeded onset: it belongs to its script, can be replayed, and resumes."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recorded"))

import rounding_seeded_onset as onset

from eoslib import recorded


@pytest.fixture(scope="module")
def record():
    return onset.load()


def test_the_record_holds_the_runs_of_the_script(record):
    assert [run.setting for run in record.values()] == onset.settings()
    assert list(record) == [setting.key for setting in onset.settings()]
    about = recorded.load(onset.RECORD)["about"]
    assert about["cpu_seconds"] > 0 and {"python", "numpy", "mpmath"} <= set(about["versions"])
    assert about["remarks"]["longdouble_bits"] == 64 and about["settings"]["threshold"] == onset.THRESHOLD
    assert onset.RECORD.stat().st_size < 1_000_000


@pytest.mark.parametrize("key", ["small-mp30-q2.2-seed0", "seeded-float64-q2.25-seed-1-delta1e-50"])
def test_runs_that_no_machine_rounds_differently_replay_exactly(record, key):
    found = onset.replay(record[key])
    assert found["diagonal_error"] < 1e-9
    assert found["amplitude_error"] < 1e-5  # the logarithm, up to 55, is stored in single precision: 2e-6


@pytest.mark.parametrize("key", ["small-float32-q2.2-seed0", "small-float64-q2.28-seed1", "paper-float64-q2.3-seed0"])
def test_floating_point_runs_replay_to_rounding(record, key):
    # Machines round differently, by up to a unit a step. While a layer's value a grows as da/dt = m a^2, a relative
    # difference grows like a itself: from the scale of the start to m^(1/3), and three times that in the product.
    run, depth = record[key], onset.DEPTH
    growth = depth * run.setting.values[0] ** (1 / depth) / run.setting.scale
    assert onset.replay(run)["units"] < growth * onset.EVERY * (len(run.head) - 1)


def test_a_changed_record_does_not_replay(record):
    good = record["small-mp30-q2.2-seed0"]
    wrong = onset.Record(**{**vars(good), "setting": onset.Setting("small", "mp30", 2.25, 0)})
    assert onset.replay(wrong)["diagonal_error"] > 1e-3


def test_an_exactly_diagonal_target_never_breaks(record):
    runs = [run for run in record.values() if run.setting.family.startswith("diagonal")]
    assert len(runs) == 5 and all(np.isneginf(run.log10_amplitude).all() for run in runs)


def test_below_the_threshold_nothing_grows(record):
    for run in record.values():
        if run.setting.q == 2.1 and not run.setting.perturbation:
            assert np.isnan(run.onset) and run.log10_amplitude.max() < 3 - onset.DIGITS[run.setting.precision]


def test_one_more_digit_costs_the_same_number_of_steps(record):
    runs = {delta: record[f"seeded-float64-q2.2-seed-1-delta{delta:g}"] for delta in (1e-12, 1e-24, 1e-50)}
    per_digit = [
        np.diff([runs[a].onset, runs[b].onset])[0] / np.log(a / b) for a, b in ((1e-12, 1e-24), (1e-24, 1e-50))
    ]
    # the amplitude turns while it grows (a complex pair): onset is uncertain by half a turn, about 25 steps in 1200
    assert np.allclose(per_digit, 1 / runs[1e-50].rate, rtol=0.05)


def test_fit_finds_a_known_rate_and_onset():
    step = np.arange(0, 4000, onset.EVERY)
    curve = -14 + 0.02 / np.log(10) * (step - 700)
    found = onset.fit(onset.Setting("small", "float64", 2.2, 0), step, curve)
    assert np.isclose(found["rate"], 0.02) and np.isclose(found["onset"], 700 + 12 * np.log(10) / 0.02)
    assert np.isnan(onset.fit(onset.Setting("small", "float64", 2.2, 0), step, np.full(step.size, -14.0))["onset"])


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    runs = [onset.Setting("seeded", "float64", 2.2, -1, perturbation=d, steps=40) for d in (1e-3, 1e-6, 1e-9)]
    monkeypatch.setattr(onset, "RECORD", tmp_path / "record.npz")
    monkeypatch.setattr(onset, "settings", lambda: runs)
    done = []
    simulate = onset.simulate

    def interrupted(setting):
        done.append(setting)
        if len(done) == 3:
            raise KeyboardInterrupt
        return simulate(setting)

    monkeypatch.setattr(onset, "simulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        onset.main([])
    assert len(list((tmp_path / "record.parts").glob("*/*.npz"))) == 2 and not (tmp_path / "record.npz").exists()
    onset.main([])
    assert done == runs + runs[2:]  # the first two were not done again
    assert list(onset.load(tmp_path / "record.npz")) == [run.key for run in runs]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digests.json", "record.lock", "record.npz"]
    assert "3/3" in capsys.readouterr().err
