"""What a result says of itself beside its headline, from answers about clips not learnt from."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes import acceptance, calibration, evaluation, triage
from stapes.acceptance import Acceptance
from stapes.calibration import Calibration
from stapes.checkpoint import Model
from stapes.clips import Clip
from stapes.dataset import DecodedDataset
from stapes.engine import probabilities
from stapes.measurement import Measured, summarise
from stapes.progress import Progress
from stapes.splits import Pairs

N_GROUPS = 5
"""Parts of the sources, each calibrated by the others, that show how good calibration is."""

COVERAGES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99)
"""Of the classes, for which the foreign sounds that are accepted are counted."""

N_MISTAKES = 1000
"""Wrong answers that are listed at most."""


def conclude(
    reported: Measured, unheard: Measured, *, n_repeats: int = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a model may know of itself by its answers, and the numbers of its protocol.

    Args:
        reported: what the headline is about; every clip must occur ``n_repeats`` times.
        unheard: all answers about clips that the network that gave them did not learn from; as
            often.
        n_repeats: number of seeds.

    Returns:
        Fields of :class:`stapes.checkpoint.Model`, and the metrics.
    """
    fitted, truth = calibrate(unheard.known, n_repeats=n_repeats)
    accepting, accepted = accept(unheard)
    metrics = account(reported.known, fitted, n_repeats=n_repeats)
    metrics |= {"calibration": truth, "acceptance": accepted}
    return {"calibration": fitted, "acceptance": accepting}, metrics


def assess(model: Model, measured: Measured) -> dict[str, Any]:
    """The numbers of a finished model on recordings that it did not learn from."""
    known, shares = measured.known, measured.known.clip_probabilities()
    after = calibration.scale(shares, model.calibration.clip_temperature)
    metrics = account(known, model.calibration)
    metrics["calibration"] = _truth(
        model.calibration, known.targets, known.sources, before=shares, after=after
    )
    if model.acceptance.thresholds:
        judged = _judged(known)
        accepted = model.acceptance.accepts(judged)
        metrics["acceptance"] = _accepted(model.acceptance, measured, accepted)
    return metrics


def beside_baselines(
    measured: Measured, decoded: DecodedDataset, pairs: Pairs, *, progress: Progress
) -> dict[str, Any]:
    """What simple rules make of the same clips, after learning from the same others.

    Args:
        measured: what networks said of the clips of every pair.
        decoded: all clips.
        pairs: indices of the clips to learn from and of those to judge.
        progress: told how it goes.
    """
    from stapes import baselines

    heard = measured.known
    rows = [i for i, clip in enumerate(decoded.clips) if clip.label in heard.config.classes]
    place = {row: i for i, row in enumerate(rows)}
    clips, waveforms = decoded.pick(rows)
    known_pairs = [
        ([place[i] for i in learnt if i in place], [place[i] for i in judged if i in place])
        for learnt, judged in pairs
    ]
    predictions = baselines.cross_predict(
        clips,
        waveforms,
        sample_rate=decoded.sample_rate,
        pairs=known_pairs,
        progress=progress,
    )
    told = baselines.summarise(predictions, clips, judged=heard.clips, right=heard.right)
    return {"baselines": told}


def account(measured: Measured, fitted: Calibration, *, n_repeats: int = 1) -> dict[str, Any]:
    """How good the answers are, and where they are wrong.

    Args:
        measured: every clip must occur ``n_repeats`` times (once a seed).
        fitted: makes the probabilities of the mistakes true.
        n_repeats: how often.
    """
    return summarise(measured, n_repeats=n_repeats) | {
        "roc": _rates(measured),
        "mistakes": _mistakes(measured, fitted),
    }


def calibrate(measured: Measured, *, n_repeats: int = 1) -> tuple[Calibration, dict[str, Any]]:
    """The temperatures that make probabilities true, and how true they are before and after.

    The error afterwards is cross-fitted: each part of the sources is scaled by the temperature
    that the others ask for. A clip counts once, however many seeds answered.
    """
    shares, targets = measured.clip_probabilities(), measured.targets
    owners, segment_shares = measured.segment_probabilities()
    weight = 1 / n_repeats
    fitted = Calibration(
        clip_temperature=calibration.fit_temperature(targets, shares, weight=weight),
        segment_temperature=calibration.fit_temperature(
            targets[owners], segment_shares, weight=weight
        ),
    )
    after = calibration.crossfit(targets, shares, _groups(measured.sources), weight=weight)
    told = _truth(
        fitted, targets, measured.sources, n_repeats=n_repeats, before=shares, after=after
    )
    return fitted, told


def _truth(
    fitted: Calibration,
    targets: NDArray[np.int64],
    sources: Sequence[str],
    *,
    n_repeats: int = 1,
    **shares: NDArray[np.float32],
) -> dict[str, Any]:
    """Reliability, of clips and not of each seed's answers, and calibration error."""
    told: dict[str, Any] = {"n_bins": calibration.N_BINS} | fitted.as_dict()
    for name, judged in shares.items():
        bins = calibration.reliability(targets, judged)
        told[name] = [bin_ | {"n": max(round(bin_["n"] / n_repeats), 1)} for bin_ in bins]
        told[f"error_{name}"] = calibration.calibration_error(targets, judged)
    told["error_by_chance"] = calibration.error_by_chance(shares["after"], sources)
    return told


def accept(measured: Measured) -> tuple[Acceptance, dict[str, Any]]:
    """The thresholds below which a clip is none of the classes, and what they let pass.

    What they accept of the classes is cross-fitted like the calibration.
    """
    judged, classes = _judged(measured.known), measured.config.classes
    fitted = acceptance.fit(judged, classes=classes)
    groups = _groups(measured.known.sources)
    accepted = acceptance.crossfit(judged, groups, classes=classes)
    told = _accepted(fitted, measured, accepted)
    foreign = _judged(measured.foreign)
    if len(foreign.called):
        told["foreign"]["curve"] = acceptance.curve(
            judged, foreign, classes=classes, coverages=COVERAGES
        )
    return fitted, told


def _judged(measured: Measured) -> acceptance.Judged:
    """The class that each clip is called, and the score of that."""
    gate = measured.config.gate
    called = measured.clip_probabilities().argmax(axis=1)
    scores = [o.scores(gate=gate)[c] for o, c in zip(measured.outputs, called, strict=True)]
    return acceptance.Judged(called, np.array(scores, dtype=np.float32), measured.sources)


def _accepted(
    fitted: Acceptance, measured: Measured, accepted: NDArray[np.bool_] | NDArray[np.float64]
) -> dict[str, Any]:
    """What of each class is accepted, if that is known, and what of the sounds that are of none."""
    known, foreign = measured.known, measured.foreign
    needed = acceptance.n_sources_needed(fitted.coverage)
    told = fitted.as_dict() | {"sources_needed": needed, "covered": {}, "foreign": None}
    for index, name in enumerate(measured.config.classes):
        own = accepted[known.targets == index]
        judged = len(own) and not np.isnan(own).any()
        told["covered"][name] = float(own.mean()) if judged else None
    if len(foreign.clips):
        passed = fitted.accepts(_judged(foreign))
        labels = np.array([clip.label for clip in foreign.clips])
        told["foreign"] = _called(passed, foreign.clips)
        told["foreign"]["by_label"] = {
            str(label): _called(
                passed[labels == label], [c for c in foreign.clips if c.label == label]
            )
            for label in np.unique(labels)
        }
    return told


def _called(passed: NDArray[np.bool_], clips: Sequence[Clip]) -> dict[str, Any]:
    """How many foreign sounds are called a class: without thresholds all of them are."""
    return {
        "n": len(set(clips)),
        "called_before": 1.0,
        "called_after": float(passed.mean()),
        "interval": list(evaluation.interval(passed, [clip.source for clip in clips])),
    }


def suspicions(
    measured: Measured, fitted: Calibration
) -> tuple[list[triage.Suspicion], list[triage.Timeline]]:
    """Clips whose label the networks doubt that never heard them, and what was heard when.

    The most doubtful are first; of several seeds the mean counts.
    """
    clips, targets, shares = _mean_answers(measured, fitted)
    rows, rate = _rows(measured), measured.config.sample_rate
    ranked = triage.rank(
        clips,
        targets,
        shares,
        measured.config.classes,
        durations_seconds=[measured.outputs[rows[clip][0]].n_samples / rate for clip in clips],
    )
    timelines = []
    for suspicion in ranked:
        outputs = [measured.outputs[row] for row in rows[suspicion.clip]]
        heard = np.mean([probabilities(output.logits) for output in outputs], axis=0)
        heard = calibration.scale(heard.astype(np.float32), fitted.segment_temperature)
        timelines.append(triage.Timeline(outputs[0].starts / rate, heard))
    return ranked, timelines


def _mean_answers(
    measured: Measured, fitted: Calibration
) -> tuple[list[Clip], NDArray[np.int64], NDArray[np.float32]]:
    """Every clip once, its class [N] and its probabilities, mean over seeds [N, n_classes]."""
    rows = _rows(measured)
    shares = calibration.scale(measured.clip_probabilities(), fitted.clip_temperature)
    targets = measured.targets[[found[0] for found in rows.values()]]
    return list(rows), targets, np.stack([shares[found].mean(axis=0) for found in rows.values()])


def _rows(measured: Measured) -> dict[Clip, list[int]]:
    """Where each clip's answers are, one a seed."""
    rows: dict[Clip, list[int]] = defaultdict(list)
    for row, clip in enumerate(measured.clips):
        rows[clip].append(row)
    return rows


def _groups(sources: Sequence[str]) -> NDArray[np.int64]:
    """A part for each clip that keeps sources whole, the same for the same sources: [N]."""
    _, numbers = np.unique(np.asarray(sources), return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(numbers.max(initial=0) + 1)
    groups: NDArray[np.int64] = shuffled[numbers] % N_GROUPS
    return groups


def _rates(measured: Measured) -> dict[str, dict[str, list[float]]]:
    """The ROC curve of each class that has both what is it and what is not; two classes share."""
    shares, classes = measured.clip_probabilities(), measured.config.classes
    shown = {1: classes[1]} if len(classes) == 2 else dict(enumerate(classes))
    curves = {}
    for index, name in shown.items():
        if 0 < (measured.targets == index).sum() < len(shares):
            rates = evaluation.roc_curve(measured.targets, shares, index=index)
            names = ("false_positives", "true_positives")
            curves[name] = {k: v.tolist() for k, v in zip(names, rates, strict=True)}
    return curves


def _mistakes(measured: Measured, fitted: Calibration) -> list[dict[str, Any]]:
    """Clips that are wrong in the mean over seeds, those that are surest of it first."""
    classes = measured.config.classes
    clips, targets, shares = _mean_answers(measured, fitted)
    lasts = {c: o.n_samples for c, o in zip(measured.clips, measured.outputs, strict=True)}
    wrong = np.flatnonzero(shares.argmax(axis=1) != targets)
    worst = wrong[np.argsort(-shares[wrong].max(axis=1), kind="stable")]
    return [
        {
            "name": clips[i].title,
            "label": clips[i].label,
            "predicted": classes[int(shares[i].argmax())],
            "probability": float(shares[i].max()),
            "probabilities": dict(zip(classes, shares[i].tolist(), strict=True)),
            "duration_seconds": lasts[clips[i]] / measured.config.sample_rate,
        }
        for i in worst[:N_MISTAKES]
    ]
