"""The loop on synthetic tones: it learns, is exact on resume, and stops when it must."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stapes import stepping, training
from stapes.config import ModelConfig, TrainingConfig
from stapes.engine import FoldedNetwork, probabilities
from stapes.errors import StopRequestedError, TrainingError, UsageError
from stapes.generator import Examples
from stapes.segments import normalise
from stapes.training import fit, learning_rate

CONFIG = ModelConfig(("low", "high"), n_layers=5, n_filters=4, segment_length=1000)
QUICK = TrainingConfig(epochs=3, steps_per_epoch=8, batch_size=8, averaging=0.8)


def tones(*, n_clips: int = 8, seed: int = 0) -> Examples:
    """Tones of 300-500 Hz against 2-3 kHz, with noise, of random levels."""
    rng = np.random.default_rng(seed)
    time = np.arange(2500) / 16_000
    waveforms, targets = [], []
    for i in range(n_clips):
        hertz = rng.uniform(300, 500) if i % 2 == 0 else rng.uniform(2000, 3000)
        tone = np.sin(2 * np.pi * hertz * time) + 0.1 * rng.normal(size=len(time))
        waveforms.append((tone * rng.uniform(0.01, 1)).astype(np.float32))
        targets.append(i % 2)
    names = [f"clip {i}" for i in range(n_clips)]
    return Examples(names, waveforms, targets, sources=names)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_it_learns_tones_it_has_not_heard():
    settings = TrainingConfig(epochs=6, steps_per_epoch=25, batch_size=16, averaging=0.9)
    state = fit(CONFIG, settings, training=tones(), validation=tones(seed=1))
    assert state.history[-1]["validation_accuracy"] >= 0.95
    assert state.history[-1]["validation_loss"] < 0.4 < state.history[0]["loss"]


def test_weights_come_from_the_seed_alone_whoever_else_draws():
    def initial(seed):
        settings = TrainingConfig(seed=seed)
        return training._begin(CONFIG, settings).stepper.tensors()

    alone = [initial(seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(initial, range(16)))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert not same(alone[0], alone[1])


def test_threads_are_those_asked_for_whatever_the_environment_says():
    program = """
import hashlib
import numpy as np
from stapes import augment
from stapes.threads import using_threads
with using_threads(1):
    noises = augment.Noises(16_000, device="cpu", rng=np.random.default_rng(0))
print(hashlib.sha256(noises.flat.tobytes()).hexdigest())
"""
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"OMP_NUM_THREADS": str(n_threads)},
            capture_output=True,
            check=True,
        ).stdout
        for n_threads in (1, 2)
    ]
    assert len(found[0]) == 65
    assert found[0] == found[1]


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    runs = [
        fit(
            CONFIG,
            TrainingConfig(epochs=1, steps_per_epoch=6, seed=seed),
            training=tones(),
            validation=None,
        )
        for seed in (5, 5, 6)
    ]
    assert same(runs[0].best, runs[1].best)
    assert not same(runs[0].best, runs[2].best)


class KilledError(Exception):
    """Stands for SIGKILL: nothing after it runs."""


def killed_at(step: int):
    def watch(report) -> None:
        if report.step == step:
            raise KilledError

    return watch


def test_resumed_training_is_exact(tmp_path: Path):
    whole = fit(CONFIG, QUICK, training=tones(), validation=tones(seed=1))
    path = tmp_path / "state"
    for step in (3, 8, 13, 23):
        with pytest.raises(KilledError):
            fit(
                CONFIG,
                QUICK,
                training=tones(),
                validation=tones(seed=1),
                state_path=path,
                on_step=killed_at(step),
            )
    resumed = fit(CONFIG, QUICK, training=tones(), validation=tones(seed=1), state_path=path)
    assert same(resumed.best, whole.best)
    for one, other in zip(resumed.history, whole.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }
    again = fit(CONFIG, QUICK, training=tones(), validation=tones(seed=1), state_path=path)
    assert again.step == whole.step
    assert same(again.best, whole.best)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_in_the_middle_of_an_epoch_and_resumes_exactly(tmp_path: Path, number):
    path = tmp_path / "state"
    handler = signal.getsignal(number)

    def strike(report) -> None:
        if report.step == 10:
            os.kill(os.getpid(), number)

    with pytest.raises(StopRequestedError) as caught:
        fit(CONFIG, QUICK, training=tones(), validation=None, state_path=path, on_step=strike)
    assert caught.value.exit_code == 128 + number
    steps = []
    resumed = fit(
        CONFIG,
        QUICK,
        training=tones(),
        validation=None,
        state_path=path,
        on_step=lambda report: steps.append(report.step),
    )
    assert steps[0] == 11
    whole = fit(CONFIG, QUICK, training=tones(), validation=None)
    assert same(resumed.best, whole.best)
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"settings": TrainingConfig(epochs=3, steps_per_epoch=8, batch_size=9)}, "batch_size"),
        (
            {"config": ModelConfig(("low", "top"), n_layers=5, n_filters=4, segment_length=1000)},
            "classes",
        ),
        ({"training": tones(seed=9)}, "recordings to learn from differ"),
        ({"training": replace(tones(), sources=["one"] * 8)}, "recordings to learn from differ"),
        ({"validation": tones(seed=9)}, "recordings to choose by differ"),
        ({"threads": 3}, "threads was [^3]+, is 3"),
        ({"kernels": "others"}, "kernels was .*, is others"),
    ],
)
def test_resume_with_something_else_is_refused_by_name(tmp_path: Path, monkeypatch, changed, named):
    path = tmp_path / "state"
    with pytest.raises(KilledError):
        fit(CONFIG, QUICK, training=tones(), validation=None, state_path=path, on_step=killed_at(9))
    if "threads" in changed:
        monkeypatch.setattr(training, "thread_count", lambda: changed["threads"])
    if "kernels" in changed:
        monkeypatch.setattr(training.native, "kernels", lambda: changed["kernels"])
    with pytest.raises(UsageError, match=named):
        fit(
            changed.get("config", CONFIG),
            changed.get("settings", QUICK),
            training=changed.get("training", tones()),
            validation=changed.get("validation"),
            state_path=path,
        )


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(tmp_path: Path, monkeypatch):
    path = tmp_path / "state"
    good = fit(
        CONFIG, TrainingConfig(**{**vars_of(QUICK), "epochs": 3}), training=tones(), validation=None
    )
    assert good.best_epoch == 3
    original = stepping.log_probabilities
    calls = iter(range(1, 1000))

    def poisoned(*given):
        return original(*given) * (float("nan") if next(calls) == 12 else 1.0)

    monkeypatch.setattr(stepping, "log_probabilities", poisoned)
    with pytest.raises(TrainingError, match=r"nan at step 12.*clip \d"):
        fit(CONFIG, QUICK, training=tones(), validation=None, state_path=path)
    best, epoch = training.best_of(path)
    assert epoch == 1
    assert all(np.isfinite(array).all() for array in best.values())


def foreign_share(state, waveform) -> float:
    """Mean probability of "none of the classes" over a waveform's segments."""
    network = FoldedNetwork.fold(CONFIG, state.best)
    parts = waveform[: len(waveform) // 1000 * 1000].reshape(-1, 1000)
    logits, none = network.logits_and_none(normalise(parts))
    return float(1 - probabilities(logits, none).sum(axis=1).mean())


def hum(hertz: float, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tone = np.sin(2 * np.pi * hertz * np.arange(4000) / 16_000)
    return (tone + 0.1 * rng.normal(size=4000)).astype(np.float32)


PLAIN = {"equaliser_db": 0.0, "unmixed_share": 0.0}
PLAIN |= {"epochs": 12, "steps_per_epoch": 25, "averaging": 0.9}


def test_the_users_own_negatives_are_learnt_as_none_of_the_classes():
    known = tones()
    others = [hum(5000, seed=i) for i in range(4)]
    names = [*known.names, *"abcd"]
    both = Examples(names, [*known.waveforms, *others], [*known.targets, *[-1] * 4], names)
    settings = TrainingConfig(negatives=0.5, **PLAIN)
    state = fit(CONFIG, settings, training=both, validation=both)
    assert state.history[-1]["validation_accuracy"] >= 0.9  # of the classes alone
    assert foreign_share(state, hum(5000, seed=9)) > 0.7
    assert all(foreign_share(state, waveform) < 0.4 for waveform in tones(seed=1).waveforms)


def test_made_up_negatives_teach_what_is_none_of_the_classes():
    settings = TrainingConfig(negatives=0.25, **PLAIN)
    state = fit(CONFIG, settings, training=tones(), validation=None)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=4000).astype(np.float32)
    known = [foreign_share(state, waveform) for waveform in tones(seed=1).waveforms]
    assert foreign_share(state, noise) > 0.5 > max(known)


def test_without_negatives_there_is_no_unit_for_them():
    with_them, without = (
        fit(
            CONFIG,
            TrainingConfig(epochs=1, steps_per_epoch=2, batch_size=8, negatives=share),
            training=tones(),
            validation=None,
        ).best
        for share in (0.1, 0.0)  # a tenth of eight is one, as long as it is any
    )
    assert with_them.keys() - without.keys() == {"none.weight", "none.bias"}
    network = FoldedNetwork.fold(CONFIG, without)
    logits, none = network.logits_and_none(np.ones((2, 1000), np.float32))
    assert np.isneginf(none).all()
    assert np.allclose(probabilities(logits, none), probabilities(logits))


@pytest.mark.parametrize("low_cut", [True, False])
def test_a_network_trained_with_a_low_cut_hears_no_offset(low_cut):
    settings = TrainingConfig(epochs=1, steps_per_epoch=4, low_cut=low_cut)
    best = fit(CONFIG, settings, training=tones(), validation=None).best
    at_0_hz = np.abs(best["convs.0.weight"].sum(axis=2))
    assert at_0_hz.max() < 1e-6 if low_cut else at_0_hz.min() > 1e-4


def vars_of(settings: TrainingConfig) -> dict:
    from stapes.config import as_dict

    return as_dict(settings)


def test_patience_stops_early_and_the_best_epoch_is_kept():
    settings = TrainingConfig(
        epochs=50,
        steps_per_epoch=2,
        batch_size=4,
        patience=2,
        validation_share=0.1,
        learning_rate=1e-7,
        averaging=0.0,
    )
    backwards = tones(seed=1)
    swapped = replace(backwards, targets=[1 - t for t in backwards.targets])
    state = fit(CONFIG, settings, training=tones(), validation=swapped)
    losses = [row["validation_loss"] for row in state.history]
    assert len(losses) < 50
    assert state.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == state.best_epoch + 2


def test_the_kept_weights_give_the_validation_loss_of_the_best_epoch():
    held = tones(seed=1)
    state = fit(CONFIG, QUICK, training=tones(), validation=held)
    from stapes.training import validate

    found = validate(FoldedNetwork.fold(CONFIG, state.best), held)
    wanted = state.history[state.best_epoch - 1]["validation_loss"]
    assert found["validation_loss"] == pytest.approx(wanted)


def test_the_validation_loss_is_that_of_training_in_which_none_has_a_share():
    state = fit(CONFIG, QUICK, training=tones(), validation=None)
    network = FoldedNetwork.fold(CONFIG, state.best)
    (waveform, *_), (target, *_) = tones(seed=1).waveforms, tones(seed=1).targets
    starts = [*range(0, len(waveform) - 1000, 256), len(waveform) - 1000]
    segments = np.stack([waveform[start : start + 1000] for start in starts])
    loud = np.abs(segments).max(axis=1) >= CONFIG.gate * np.abs(waveform).max()
    logits, none = network.logits_and_none(network.prepare(segments[loud]))
    three = np.stack([np.zeros(len(none)), logits[:, 0], none], axis=1).astype(np.float64)
    losses = np.log(np.exp(three).sum(axis=1)) - three[:, target]
    first = Examples(["one"], [waveform], [target], ["one"])
    found = training.validate(network, first)
    assert found["validation_loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_the_average_follows_quickly_at_first_and_slowly_in_the_end():
    paces = [training.averaging_pace(step, TrainingConfig(averaging=0.995)) for step in range(4000)]
    assert paces[0] == pytest.approx(0.9)
    assert paces == sorted(paces, reverse=True)
    assert paces[-1] == pytest.approx(0.005)
    assert paces[500] > 0.01


def test_one_cycle_rises_then_falls_to_nothing():
    settings = TrainingConfig(epochs=4, steps_per_epoch=25, learning_rate=0.1)
    rates = [learning_rate(step, settings) for step in range(100)]
    np.testing.assert_allclose(rates[:25], np.linspace(0.1 / 25, 0.1, 25))
    assert rates[61] > 0.05 > rates[62]  # half of the way down in the middle of what is left
    assert rates[24:] == sorted(rates[24:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_learns_too():
    state = fit(
        CONFIG,
        TrainingConfig(**{**vars_of(QUICK), "device": "cuda"}),
        training=tones(),
        validation=tones(seed=1),
    )
    assert np.isfinite(state.history[-1]["loss"])
