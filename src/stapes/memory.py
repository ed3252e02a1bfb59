"""Which recordings a model learnt from: by the marks it carries, and by its training set."""

import json
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
    another rate, at another level or in another format, is recognised, too.

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
    clips, waveforms = trained.pick(rows)
    findings = find_shared(
        [*decoded.clips, *clips],
        [*decoded.waveforms, *waveforms],
        sample_rate=decoded.sample_rate,
        progress=progress,
        cache=cache_folder(),
    )
    for finding in findings:
        if max(finding.clips) >= len(known):  # one of them is of the training set
            for i in (i for i in finding.clips if i < len(known)):
                known[i] = True
    return known


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
