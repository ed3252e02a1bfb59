"""The page of a run, from its numbers, its model and what recordings can still be read."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stapes import checkpoint, runs, triage
from stapes.checkpoint import Model
from stapes.clips import Skip
from stapes.config import SAMPLE_RATE
from stapes.dataset import DecodedDataset, list_clips, read_clip
from stapes.errors import DataError, UsageError
from stapes.files import write_json, write_text
from stapes.inspection import ClipExplanation, explain_waveform
from stapes.segments import Waveform
from stapes.triage import Suspicion, Timeline

Recordings = Callable[[str], Waveform | None]
"""The waveform of a clip by its title, None if it cannot be had."""

MAX_EXPLAINED_SECONDS = 10
"""What the page takes apart layer by layer of one recording, at most."""


def report(run: str | Path) -> Path:
    """Write the page of a run folder anew, from what the folder holds.

    Recordings are played and drawn if they can still be read where they were.

    Args:
        run: a folder that ``train``, ``crossval`` or ``evaluate`` wrote.

    Returns:
        The page's path.

    Raises:
        UsageError: the folder holds no results.
        ModelFileError: its model is damaged.
    """
    folder = Path(run)
    metrics = _read_metrics(folder / runs.METRICS_FILE)
    path = folder / checkpoint.MODEL_FILE
    model = checkpoint.load(path) if path.exists() else None
    page = render(
        metrics,
        recordings=_on_disk(metrics["data"], sample_rate=_rate_of(model)),
        model=model,
        history=_read_history(folder / runs.HISTORY_FILE),
    )
    write_text(folder / runs.REPORT_FILE, page)
    return folder / runs.REPORT_FILE


def write_run(
    folder: Path,
    metrics: dict[str, Any],
    decoded: DecodedDataset,
    *,
    model: Model,
    doubts: tuple[list[Suspicion], list[Timeline]],
    history: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Put a model, its numbers, the labels to look at and the page of all that into a folder."""
    runs.clear_lists(folder)
    checkpoint.save(folder / checkpoint.MODEL_FILE, model)
    if history:
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in history)
        write_text(folder / runs.HISTORY_FILE, lines)
    triage.write_csv(folder / runs.DOUBTS_FILE, doubts[0])
    seconds = model.config.segment_seconds
    triage.write_audacity(folder / runs.LABELS_FOLDER, *doubts, segment_seconds=seconds)
    write_json(folder / runs.METRICS_FILE, metrics)
    waveforms = {c.title: w for c, w in zip(decoded.clips, decoded.waveforms, strict=True)}
    page = render(metrics, recordings=waveforms.get, model=model, history=history)
    write_text(folder / runs.REPORT_FILE, page)


def render(
    metrics: Mapping[str, Any],
    *,
    recordings: Recordings,
    model: Model | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page of results, as HTML.

    Args:
        metrics: what metrics.json holds.
        recordings: the waveforms to play and draw.
        model: shows what its layers do with one recording of each class.
        history: rows of history.jsonl.
    """
    from stapes.pages.report import render_report

    return render_report(
        metrics,
        title=Path(metrics["data"]).name,
        history=history,
        recording=recordings,
        explanations=_explanations(metrics, recordings, model) if model else None,
        sample_rate=_rate_of(model),
    )


def _rate_of(model: Model | None) -> int:
    return model.config.sample_rate if model else SAMPLE_RATE


def _on_disk(data: str, *, sample_rate: int) -> Recordings:
    """Waveforms of clips that are read when they are asked for, if they are still there."""
    try:
        clips = {clip.title: clip for clip in list_clips(data).clips}
    except DataError:
        clips = {}

    def read(title: str) -> Waveform | None:
        found = read_clip(clips[title], sample_rate=sample_rate) if title in clips else None
        return None if found is None or isinstance(found, Skip) else found.waveform

    return read


def _explanations(
    metrics: Mapping[str, Any], recordings: Recordings, model: Model
) -> dict[str, ClipExplanation]:
    """The first recording of each class, taken apart."""
    network, rate = model.fold(), model.config.sample_rate
    explained = {}
    for label, titles in metrics.get("examples", {}).items():
        waveform = recordings(titles[0]) if titles else None
        if waveform is not None:
            explained[label] = explain_waveform(
                network,
                waveform[: MAX_EXPLAINED_SECONDS * rate],
                hop_length=model.config.segment_length,
                clip_temperature=model.calibration.clip_temperature,
                raw_kernels=model.tensors["convs.0.weight"],
            )
    return explained


def _read_metrics(path: Path) -> Any:
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path}: no results to report ({why}); give a run folder") from error
    parts = {"data": str, "clips": dict, "segments": dict}
    whole = isinstance(metrics, dict) and all(
        isinstance(metrics.get(name), kind) for name, kind in parts.items()
    )
    if not whole:
        raise UsageError(f"{path}: not written by this version of stapes; run it again")
    return metrics


def _read_history(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        rows = [json.loads(row) for row in path.read_text().splitlines()]
    except ValueError as error:
        raise UsageError(f"{path}: damaged ({error}); remove it, or run it again") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: not written by this version of stapes; remove it")
    return rows
