"""A model measured on labelled recordings that it was not made from."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from stapes import account, evaluation, experiment, reporting, runs
from stapes.clips import listing
from stapes.dataset import DecodedDataset
from stapes.errors import DataError
from stapes.experiment import DataOptions
from stapes.foreign import read_foreign, strangers
from stapes.inference import Classifier, load
from stapes.measurement import Measured, measure, measure_foreign
from stapes.memory import Memory
from stapes.progress import Progress, silent
from stapes.regrouping import Leaks


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    against: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Segments and clips of labelled recordings that a model gets right.

    Args:
        model: a model file, a run folder, or the name of a shipped model.
        data: as for :func:`stapes.train`; its labels must be classes of the model.
        out: a run folder for the numbers and the report; without it nothing is written.
        against: another model of the same classes and sample rate to compare with, clip by clip.
        overwrite: replace an earlier run in ``out``.
        progress: told how it goes.
        **options: fields of :class:`stapes.experiment.DataOptions`.

    Raises:
        DataError: a label that the model does not know, or recordings that it was trained on.
    """
    started = time.monotonic()
    experiment.refuse_unknown(options, DataOptions)
    classifier, chosen = load(model), DataOptions(**options)
    other = None if against is None else load(against)
    if other is not None:
        _check_alike(classifier, other, names=(str(model), str(against)))
    if out is not None:
        runs.refuse_inside(out, data, *chosen.foreign)
        if overwrite:
            runs.refuse_labels_of(out, chosen.labels)
        runs.refuse_model_of(out, model, *([] if against is None else [against]))
    place = nullcontext() if out is None else runs.run_folder(out, resume=None, overwrite=overwrite)
    with place as folder:
        decoded, audit = experiment.read(
            data, progress, config=classifier.config, options=replace(chosen, leaks="regroup")
        )
        _check_labels(decoded, classifier, data)
        memories = {str(model): Memory.of(classifier.model, model, progress=progress)}
        if other is not None and against is not None:
            memories[str(against)] = Memory.of(other.model, against, progress=progress)
        told = [warning for memory in memories.values() for warning in memory.warnings]
        decoded = replace(decoded, warnings=(*decoded.warnings, *told))
        for name, memory in memories.items():
            known = memory.knows(decoded, progress=progress)
            decoded = _without_known(decoded, known, chosen.leaks, model=name)
        _check_labels(decoded, classifier, data)
        decoded = _told_of_calibration(decoded, memories[str(model)].calibrated_by(decoded))
        measured = measure(classifier.network, decoded.clips, decoded.waveforms, progress=progress)
        foreign = read_foreign(chosen.foreign, progress, beside=decoded)
        answers = [memory.knows(foreign, progress=progress) for memory in memories.values()]
        learnt = [any(row) for row in zip(*answers, strict=True)]
        foreign = strangers(foreign, known=learnt, why="the model learnt from them")
        others = measure_foreign(classifier.network, foreign.clips, foreign.waveforms)
        unheard = Measured.join([measured, others])
        metrics = account.assess(classifier.model, unheard)
        if other is not None:
            theirs = measure(other.network, decoded.clips, decoded.waveforms, progress=progress)
            metrics["against"] = _compare(measured, theirs) | {"model": str(against)}
        metrics |= experiment.provenance("evaluate", data, decoded, foreign, started=started)
        metrics |= {"audit": audit, "leaks": chosen.leaks, "model": str(model)}
        learnt_from = classifier.model.profile
        metrics["profile"] = learnt_from.as_dict() if learnt_from else None
        doubts = account.suspicions(measured.known, classifier.model.calibration)
        metrics["suspicious"] = [suspicion.as_dict() for suspicion in doubts[0]]
        if folder is not None:
            runs.begin_anew(folder)
            reporting.write_run(folder, metrics, decoded, model=classifier.model, doubts=doubts)
    return metrics


def _check_alike(first: Classifier, second: Classifier, *, names: tuple[str, str]) -> None:
    if first.classes != second.classes:
        raise DataError(
            f"{names[1]}: its classes are {', '.join(second.classes)}, those of {names[0]}"
            f" {', '.join(first.classes)}: compare models of the same classes"
        )
    rates = [classifier.config.sample_rate for classifier in (first, second)]
    if rates[0] != rates[1]:
        raise DataError(
            f"{names[1]}: its sample rate is {rates[1]:,} Hz, that of {names[0]} {rates[0]:,} Hz:"
            " compare models of the same rate"
        )


def _check_labels(decoded: DecodedDataset, classifier: Classifier, data: str | Path) -> None:
    labels = set(experiment.class_names(decoded.clips))
    if not labels:
        raise DataError(f"{data}: nothing but negatives: give recordings of the model's classes")
    unknown = sorted(labels - set(classifier.classes))
    if unknown:
        raise DataError(
            f"{data}: label {unknown[0]!r} is not a class of the model"
            f" ({', '.join(classifier.classes)}); rename the folder or the label"
        )


def _without_known(
    decoded: DecodedDataset, known: Sequence[bool], leaks: Leaks, *, model: str
) -> DecodedDataset:
    """The clips that a model did not learn from, or all of them if that is allowed.

    Raises:
        DataError: it learnt from some, and nobody said what to do.
    """
    if not any(known):
        return decoded
    names = [clip.title for clip, is_known in zip(decoded.clips, known, strict=True) if is_known]
    told = f"{model} learnt from {len(names)} of the {len(known)} recordings ({listing(names)})"
    if leaks == "allow":
        return replace(decoded, warnings=(*decoded.warnings, f"{told}; results are too good"))
    if all(known):
        raise DataError(f"{told}: give others, or --leaks allow for results that are too good")
    if leaks == "refuse":
        raise DataError(f"{told}: --leaks regroup leaves them out, --leaks allow keeps them")
    left = decoded.only([i for i, is_known in enumerate(known) if not is_known])
    return replace(left, warnings=(*decoded.warnings, f"{told}; these are left out"))


def _told_of_calibration(decoded: DecodedDataset, known: Sequence[bool]) -> DecodedDataset:
    """Warn where probabilities and thresholds are judged by what they were made of."""
    if not any(known):
        return decoded
    told = (
        f"the model was calibrated on {sum(known)} of these {len(known)} recordings: its"
        " probabilities, and any thresholds, look better than they are"
    )
    return replace(decoded, warnings=(*decoded.warnings, told))


def _compare(ours: Measured, theirs: Measured) -> dict[str, Any]:
    """By how much ours is better on the same clips, and how likely by chance."""
    ours, theirs = ours.known, theirs.known
    return {
        "clips": {"accuracy": float(theirs.right.mean())},
        "difference": evaluation.compare(ours.right, theirs.right, ours.sources),
    }
