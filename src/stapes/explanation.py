"""One recording taken apart: read, explain, draw."""

from pathlib import Path

from stapes import audio
from stapes.errors import StapesError, UsageError
from stapes.files import remove_orphans
from stapes.inference import load
from stapes.inspection import explain_waveform
from stapes.progress import Progress, silent

MAX_SECONDS = 300.0
"""Longer recordings make figures that nobody can read."""


def explain(
    model: str | Path,
    clip: str | Path,
    *,
    out: str | Path,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write what the network does with one recording: figures as PNG and SVG, and one page.

    Args:
        model: a model file, a run folder, or the name of a shipped model.
        clip: a recording of at most five minutes.
        out: the folder to write; made if it is missing.
        overwrite: replace the page and the figures that are there.
        progress: told how it goes.

    Returns:
        The page's path.

    Raises:
        AudioError: the recording cannot be read.
        UsageError: it is too long, or ``out`` holds a file of one of those names.
    """
    from stapes.pages.clip import FILES, write_explanation

    classifier = load(model)
    folder = Path(out)
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise UsageError(f"{folder} already holds {there[0]}: give another --out or --overwrite")
    recording = audio.read(clip, sample_rate=classifier.config.sample_rate)
    if recording.duration_seconds > MAX_SECONDS:
        raise UsageError(
            f"{clip} lasts {recording.duration_seconds:.0f} s: cut out the piece of interest, at"
            f" most {MAX_SECONDS:.0f} s"
        )
    notes = classifier.predict(clip).notes
    explanation = explain_waveform(
        classifier.network,
        recording.waveform,
        hop_length=classifier.hop_length(None),  # the answer that prediction gives
        clip_temperature=classifier.model.calibration.clip_temperature,
        raw_kernels=classifier.model.tensors["convs.0.weight"],
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StapesError(f"{folder}: cannot be made ({error.strerror}); choose another") from error
    remove_orphans(folder)
    return write_explanation(
        folder,
        explanation,
        name=Path(clip).name,
        model=Path(model).name,
        notes=notes,
        progress=progress,
    )
