"""Which recordings a model learnt from: by the marks it carries, and by its training set."""

import json
import os
from pathlib import Path

from stapes import runs
from stapes.checkpoint import Model
from stapes.copies import MARK_LENGTH, mark
from stapes.dataset import DecodedDataset, decode, list_clips
from stapes.errors import DataError
from stapes.progress import Progress
from stapes.sharing import cache_folder, find_shared


def recall(
    model: Model, path: str | Path, decoded: DecodedDataset, *, progress: Progress
) -> list[bool]:
    """For each clip, whether the model learnt from it, or from a recording that shares its audio.

    A model knows the very samples it learnt from by their marks. If it comes in the folder of its
    run, and its training set can still be read where it was, audio that overlaps, or comes at
    another rate, at another level or in another format, is recognised, too, and so is whatever
    else lies in a file that it learnt from.

    Args:
        model: the model.
        path: where it came from: a file, a run folder or a name.
        decoded: the clips to recognise.
        progress: told how it goes.
    """
    written = str(model.about.get("recordings", ""))
    marks = {written[i : i + MARK_LENGTH] for i in range(0, len(written), MARK_LENGTH)}
    known = [mark(waveform) in marks for waveform in decoded.waveforms]
    trained = _training_set(Path(path), sample_rate=decoded.sample_rate, progress=progress)
    rows = [i for i, waveform in enumerate(trained.waveforms) if mark(waveform) in marks]
    if not rows:
        return known
    shared = shares_audio(decoded, trained.only(rows), progress=progress)
    return [a or b for a, b in zip(known, shared, strict=True)]


def shares_audio(asked: DecodedDataset, among: DecodedDataset, *, progress: Progress) -> list[bool]:
    """For each clip, whether it shares audio with one of others, or lies in a file of theirs.

    Args:
        asked: the clips in question.
        among: the others, at the same sample rate.
        progress: told how it goes.
    """
    files = {os.path.realpath(clip.path) for clip in among.clips}
    shared = [os.path.realpath(clip.path) in files for clip in asked.clips]
    findings = find_shared(
        [*asked.clips, *among.clips],
        [*asked.waveforms, *among.waveforms],
        sample_rate=asked.sample_rate,
        progress=progress,
        cache=cache_folder(),
    )
    for finding in findings:
        if max(finding.clips) >= len(shared):  # one of them is of the others
            for i in (i for i in finding.clips if i < len(shared)):
                shared[i] = True
    return shared


def _training_set(run: Path, *, sample_rate: int, progress: Progress) -> DecodedDataset:
    """The recordings of a run, as far as they can still be read; none of a model without a run."""
    try:
        data = json.loads((run / runs.METRICS_FILE).read_text())["data"]
        return decode(
            list_clips(data),
            sample_rate=sample_rate,
            progress=lambda done, total: progress("reading the training set", done, total, ""),
        )
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return DecodedDataset((), [], sample_rate, (), (), ())
