"""What a given time buys: times read, steps of the ladder climbed, and the choice trained."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from stapes import batches, budget, holdout
from stapes.budget import RUNGS, Choice, Rung, choose, parse_budget
from stapes.config import PRESET_EPOCHS, PRESETS, TrainingConfig
from stapes.errors import UsageError
from stapes.experiment import read
from stapes.progress import silent

LADDER = (Rung("classic", 5, 8.0), Rung("classic", 30, 40.0), Rung("large", 80, 500.0))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("60", 60), (" 1.5 m ", 90), ("2min", 120), ("1h", 3600), ("0.5s", 0.5)],
)
def test_times(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "0", "nan", "1e9", "5 weeks", "inf", "1m30s"])
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="such as 60s"):
        parse_budget(text)


def test_trials_take_in_the_choices_that_are_made_for_several_batches_at_once():
    assert budget.TRIAL_STEPS == 2 * batches.PLANNED


def test_the_ladder_climbs():
    presets = [preset for preset, _ in RUNGS]
    assert presets == sorted(presets, key=list(PRESETS).index)
    for one, other in pairwise(RUNGS):
        assert one[0] != other[0] or one[1] < other[1]


@pytest.mark.parametrize(
    ("chosen", "seconds", "words"),
    [
        (0, 10, "buy classic with 5 epochs (8 s); more time would buy classic with 30"),
        (2, 600, "buy large with 80 epochs (500 s); more time buys nothing better"),
        (0, 3, "(8 s), which takes longer, but nothing is shorter"),
    ],
)
def test_what_was_chosen_is_said_and_what_more_would_buy(chosen, seconds, words):
    assert words in Choice(LADDER[chosen], LADDER[chosen + 1 :], seconds).words()


@pytest.mark.parametrize(("seconds", "step"), [(1e9, -1), (0.1, 0)])
def test_the_highest_step_that_fits_is_chosen(tones_folder, monkeypatch, seconds, step):
    monkeypatch.setattr(budget, "TRIAL_STEPS", 2)
    decoded, _ = read(tones_folder, silent)
    choice = choose(
        decoded,
        range(len(decoded.clips)),
        settings=TrainingConfig(batch_size=2),
        budget_seconds=seconds,
        spent_seconds=1.0,
        progress=silent,
    )
    preset, share = RUNGS[step]
    assert choice.chosen.preset == preset
    assert choice.chosen.epochs == round(share * PRESET_EPOCHS[preset][0])
    rungs = [choice.chosen, *choice.more]
    assert all(rung.seconds > 1 + budget.CLOSING_SECONDS for rung in rungs)


def test_the_time_of_a_step_of_the_ladder_is_added_up(tones_folder, monkeypatch):
    decoded, _ = read(tones_folder, silent)
    now = [100.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])

    def learn(_decoded, _training, *, config, settings, on_step):
        """Ready after a while; the first steps take a second, later ones less, a 16th more."""
        slower = config.n_parameters / 3041
        now[0] += 4 * slower
        for i in range(settings.steps_per_epoch):
            usual = 0.16 * slower if i % 16 == 0 else 0.0
            now[0] += 1.0 if i < settings.steps_per_epoch // 2 else usual
            on_step(None)

    monkeypatch.setattr(budget, "learn", learn)

    def bought(seconds: float) -> Choice:
        now[0] = 100.0
        return choose(
            decoded,
            range(len(decoded.clips)),
            settings=TrainingConfig(steps_per_epoch=50),
            budget_seconds=seconds,
            spent_seconds=7.0,
            progress=silent,
        )

    choice = bought(0.1)
    sound = sum(map(len, decoded.waveforms)) / decoded.sample_rate
    fixed = 7 + (now[0] - 100) + budget.CLOSING_SECONDS + budget.CLOSING_SHARE * sound
    first, second, *_ = choice.chosen, *choice.more
    assert sound > 10
    assert first.seconds == pytest.approx(fixed + 5 + first.epochs * 50 * 0.01)
    assert second.seconds == pytest.approx(fixed + 5 + second.epochs * 50 * 0.01)
    assert bought(second.seconds - 0.01).chosen.epochs == first.epochs
    assert bought(second.seconds + 0.01).chosen.epochs == second.epochs


def test_what_is_bought_for_more_classes_has_more_epochs(tones_folder, monkeypatch):
    monkeypatch.setattr(budget, "TRIAL_STEPS", 2)
    decoded, _ = read(tones_folder, silent)
    clips = tuple(replace(c, label=f"{c.label}{i % 4}") for i, c in enumerate(decoded.clips))
    choice = choose(
        replace(decoded, clips=clips),
        range(len(clips)),
        settings=TrainingConfig(batch_size=2),
        budget_seconds=1e9,
        spent_seconds=0.0,
        progress=silent,
    )
    assert choice.chosen.epochs == 100  # eight classes, not two, of which it takes 50


def test_training_takes_what_the_budget_buys(tones_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "RUNGS", (("small", 0.02), ("large", 1800.0)))
    monkeypatch.setattr(budget, "TRIAL_STEPS", 2)
    metrics = holdout.train(
        tones_folder, out=tmp_path / "run", budget="60s", batch_size=2, steps_per_epoch=2
    )
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["preset"] == "small" and written["settings"]["epochs"] == 1
    assert metrics["parameters"] < 25_000
    assert "large with 90000 epochs" in written["budget"]["words"]


def test_a_resumed_run_keeps_what_was_bought(tones_folder, tmp_path, monkeypatch):
    bought = {"preset": "classic", "epochs": 1, "words": "as before", "seconds": 9 * 3600.0}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "budget.json").write_text(json.dumps(bought))
    metrics = holdout.train(
        tones_folder,
        out=tmp_path / "run",
        budget="9h",
        resume=True,
        batch_size=2,
        steps_per_epoch=2,
    )
    assert metrics["budget"] == bought
    assert (metrics["preset"], metrics["settings"]["epochs"]) == ("classic", 1)
    for other in ({"budget": "8h"}, {}, {"epochs": 1}):
        with pytest.raises(UsageError, match=r"run: cannot resume, .* --budget 32400s"):
            holdout.train(tones_folder, out=tmp_path / "run", resume=True, **other)


def test_a_refused_budget_does_not_spoil_the_run(tones_folder, tmp_path):
    small = {"out": tmp_path / "run", "batch_size": 2, "steps_per_epoch": 2, "epochs": 1}
    holdout.train(tones_folder, **small)
    with pytest.raises(UsageError, match="run: cannot resume, it was begun without --budget"):
        holdout.train(tones_folder, out=tmp_path / "run", resume=True, budget="60s")
    assert holdout.train(tones_folder, resume=True, **small)["budget"] is None


@pytest.mark.parametrize("more", [{"epochs": 3}, {"preset": "small"}, {"preset": "classic"}])
def test_a_budget_leaves_nothing_else_to_choose(tones_folder, tmp_path, more):
    with pytest.raises(UsageError, match="without --preset"):
        holdout.train(tones_folder, out=tmp_path / "run", budget="60s", **more)
    assert not (tmp_path / "run").exists()
