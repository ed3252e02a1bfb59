"""The notebook's protocol beside an honest one: the same network, the same steps.

The notebook joins all files of a class end to end, normalises that by the class's own
statistics (so that what is fed to the network depends on the label, at test time too), and
splits by file although several files were cut from one recording.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stapes import __version__
from stapes.config import ModelConfig, TrainingConfig, as_dict, in_range
from stapes.dataset import DecodedDataset
from stapes.engine import FoldedNetwork
from stapes.experiment import (
    MOST_SEEDS,
    DataOptions,
    class_names,
    learn,
    left_out,
    read,
    step_reporter,
)
from stapes.holdout import TEST_SHARE
from stapes.measurement import Measured, measure, summarise
from stapes.negatives import is_negative
from stapes.progress import Progress, silent
from stapes.segments import SILENCE_RMS, Waveform
from stapes.splits import Pair, split

PUBLISHED = {"segments": 0.70, "clips": 0.70}
"""What the notebook says of itself: about 70 % of test segments and of clips."""

ROWS = ("notebook", "notebook_blind", "split_by_file", "honest")
"""What is measured, from the notebook's protocol to the honest one."""

PLAIN = TrainingConfig(
    epochs=15,
    averaging=0.0,
    low_cut=False,
    speed=0.0,
    mixing=0.0,
    polarity=False,
    equaliser_db=0.0,
    negatives=0.0,
    validation_share=0.0,
)
"""Training as in the notebook: no augmentation, no averaging, the last epoch is kept."""


def reproduce(
    data: str | Path, *, seeds: int = 3, epochs: int = PLAIN.epochs, progress: Progress = silent
) -> dict[str, Any]:
    """Measure the notebook's protocol and ours with the same network and steps.

    Four rows, each a step towards honesty: "notebook" as it was; "notebook_blind", the same
    trained networks when the test recordings are normalised without knowing their labels;
    "split_by_file", segments inside clips and normalised by themselves, but files of one source
    on both sides of the split; and "honest", split by source.

    Args:
        data: as for :func:`stapes.train`; two or more classes.
        seeds: splits and trainings of each protocol.
        epochs: of 100 steps each.
        progress: told how it goes.

    Returns:
        Metrics of each row, "published" (the notebook's own), the "gap" of the notebook's row to
        the honest one, and the "leak", that of a split by file to one by source.
    """
    started = time.monotonic()
    seeds = in_range("seeds", seeds, 1, MOST_SEEDS)
    plain = replace(PLAIN, epochs=epochs)
    decoded, _ = read(data, progress, options=DataOptions(leaks="regroup"))
    decoded = decoded.only([i for i, c in enumerate(decoded.clips) if not is_negative(c.label)])
    rows: dict[str, list[Measured]] = {name: [] for name in ROWS}
    files = [replace(clip, source=clip.name) for clip in decoded.clips]  # as if unrelated
    for seed in range(seeds):
        settings = replace(plain, seed=seed)
        told = f"seed {seed + 1} of {seeds}"
        by_file = split(files, share=TEST_SHARE, seed=seed)
        by_source = split(decoded.clips, share=TEST_SHARE, seed=seed)
        leaking, blind = _notebook(
            decoded, by_file, settings, progress, told=f"notebook's protocol, {told}"
        )
        rows["notebook"].append(leaking)
        rows["notebook_blind"].append(blind)
        for name, parts in {"split_by_file": by_file, "honest": by_source}.items():
            note = f"ours, {name.replace('_', ' ')}, {told}"
            rows[name].append(_ours(decoded, parts, settings, progress, told=note))
    results: dict[str, Any] = {name: summarise(Measured.join(row)) for name, row in rows.items()}
    results["published"] = PUBLISHED
    for name, row in {"gap": "notebook", "leak": "split_by_file"}.items():
        results[name] = {
            part: results[row][part]["accuracy"] - results["honest"][part]["accuracy"]
            for part in ("segments", "clips")
        }
    results |= {"seeds": seeds, "settings": as_dict(plain)}
    results |= {"seconds": time.monotonic() - started, "version": __version__}
    return results | left_out(decoded)


def _ours(
    decoded: DecodedDataset,
    parts: Pair,
    settings: TrainingConfig,
    progress: Progress,
    *,
    told: str,
) -> Measured:
    """Segments inside clips, normalised by themselves."""
    config = ModelConfig(class_names(decoded.clips))
    training, test = parts
    state = learn(
        decoded,
        training,
        config=config,
        settings=settings,
        on_step=step_reporter(progress, told),
    )
    return measure(FoldedNetwork.fold(config, state.best), *decoded.pick(test))


def _notebook(
    decoded: DecodedDataset,
    parts: Pair,
    settings: TrainingConfig,
    progress: Progress,
    *,
    told: str,
) -> tuple[Measured, Measured]:
    """Measured with the labels leaking into the normalisation, and without them."""
    from stapes.generator import Examples
    from stapes.training import fit

    classes = class_names(decoded.clips)
    config = ModelConfig(classes, normalise=False)
    training, test = parts
    joined = [
        np.concatenate(_of_class(decoded, training, label))  # [T of the whole class]
        for label in classes
    ]
    waveforms = [_standardise(j, j) for j in joined]
    examples = Examples(classes, waveforms, range(len(classes)), sources=classes)
    state = fit(
        config,
        settings,
        training=examples,
        validation=None,
        on_step=step_reporter(progress, told),
    )
    network = FoldedNetwork.fold(config, state.best)
    clips, waveforms = decoded.pick(test)
    of_class = {label: np.concatenate(_of_class(decoded, test, label)) for label in classes}
    leaking = [_standardise(w, of_class[c.label]) for c, w in zip(clips, waveforms, strict=True)]
    blind = [_standardise(w, w) for w in waveforms]
    return measure(network, clips, leaking), measure(network, clips, blind)


def _of_class(decoded: DecodedDataset, indices: Sequence[int], label: str) -> list[Waveform]:
    return [decoded.waveforms[i] for i in indices if decoded.clips[i].label == label]


def _standardise(waveform: Waveform, reference: Waveform) -> Waveform:
    """Subtract the mean and divide by the standard deviation of another waveform."""
    spread = np.maximum(reference.std(), np.float32(SILENCE_RMS))
    scaled: Waveform = (waveform - reference.mean()) / spread
    return scaled
