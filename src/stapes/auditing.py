"""What in a data set would spoil its results: copies, overlaps, contradictions, leaks, damage."""

import csv
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stapes import __version__, audio
from stapes.clips import Clip, Skip, listing, printable
from stapes.copies import join, same_files
from stapes.dataset import list_clips, read_clip
from stapes.files import write_text
from stapes.fingerprint import RATE_HZ
from stapes.progress import Progress, silent
from stapes.segments import Waveform
from stapes.sharing import Finding, Heard, compare, hear, in_threads
from stapes.tables import FORMULA_STARTS, quoted

CONCERNS: dict[str, Callable[[Clip], Hashable]] = {
    "two labels": lambda clip: clip.label,
    "train and test": lambda clip: clip.part,
    "two folds": lambda clip: clip.fold,
}
"""What must not differ between clips that share audio."""


def audit(data: str | Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Find copies, overlaps, contradicting labels, leaks between parts, and damage in a data set.

    Every clip is read once at 8 kHz, and those that seem to share audio once more; memory depends
    on the longest clip and the number of clips, not on the hours of audio.

    Args:
        data: a folder or table; see :func:`stapes.dataset.load_dataset`. Unlike there, the same
            audio under two labels is no error, but a finding.
        progress: told what is being done.

    Returns:
        A dict for JSON: ``n_files``, ``n_sources``, ``sources`` ({file name: source}, with the
        times of an event behind its file's name; given sources joined over what shares audio),
        ``counts`` ({kind or concern: number}), ``findings`` (see :func:`describe`), ``folder`` and
        ``clips`` (what :func:`write_sources` needs), ``skipped``, ``warnings``, ``seconds``,
        ``version``.

    Raises:
        DataError: nothing to read, or a table that contradicts itself.
    """
    started = time.perf_counter()
    dataset = list_clips(data)
    clips, heard, flagged, skipped = _hear_all(dataset.clips, progress=progress)
    shared = compare(clips, heard, waveform_of=lambda i: _fetch(clips[i]), progress=progress)
    findings = [*_with_same_bytes(clips, shared), *flagged]
    sources = find_sources(clips, findings)
    return {
        **summarise(clips, findings),
        "sources": {clip.title: source for clip, source in zip(clips, sources, strict=True)},
        "folder": os.path.abspath(dataset.root),
        "clips": [_row(clip, source) for clip, source in zip(clips, sources, strict=True)],
        "skipped": [
            {"name": skip.name, "reason": skip.reason} for skip in (*dataset.skipped, *skipped)
        ],
        "warnings": list(dataset.warnings),
        "seconds": time.perf_counter() - started,
        "version": __version__,
    }


def summarise(clips: Sequence[Clip], findings: Sequence[Finding]) -> dict[str, Any]:
    """What was found, for JSON: ``n_files``, ``n_sources``, ``counts`` and ``findings``."""
    return {
        "n_files": len({clip.path for clip in clips}),
        "n_sources": len(set(find_sources(clips, findings))),
        "counts": _count(clips, findings),
        "findings": [describe(clips, finding) for finding in findings],
    }


def find_sources(clips: Sequence[Clip], findings: Sequence[Finding]) -> list[str]:
    """The source of every clip: the given sources, joined where clips share audio."""
    return join([clip.source for clip in clips], [f.clips for f in findings if len(f.clips) > 1])


def leaks(
    clips: Sequence[Clip], findings: Sequence[Finding], groups: Sequence[Hashable]
) -> list[Finding]:
    """Findings whose clips lie in different groups.

    Args:
        clips: the clips.
        findings: what they share.
        groups: fold or part of each clip; clips in the group None are in none.
    """
    if len(groups) != len(clips):
        raise ValueError(f"{len(groups)} groups for {len(clips)} clips")
    return [f for f in findings if len({groups[i] for i in f.clips} - {None}) > 1]


def describe(clips: Sequence[Clip], finding: Finding) -> dict[str, Any]:
    """A finding for JSON and for people.

    Returns:
        ``kind``, ``files`` (with the times of events), ``labels``, ``concerns`` (of "two labels",
        "train and test", "two folds"), ``words`` (a sentence), and for audio that was aligned
        ``offset_seconds``, ``overlap_seconds``, ``similarity``, ``gain_db`` and ``inverted``.
    """
    chosen = [clips[i] for i in finding.clips]
    words = [_words(chosen, finding), *_concern_words(chosen)]
    result: dict[str, Any] = {
        "kind": finding.kind,
        "files": [clip.title for clip in chosen],
        "labels": [clip.label for clip in chosen],
        "concerns": _concerns(chosen),
        "words": "; ".join(words),
    }
    if finding.alignment is not None:
        result |= {
            "offset_seconds": round(finding.alignment.offset_seconds, 4),
            "overlap_seconds": round(finding.alignment.shared_seconds, 3),
            "similarity": round(finding.alignment.similarity, 3),
            "gain_db": round(finding.alignment.gain_db, 1),
            "inverted": finding.alignment.inverted,
        }
    return result


def write_sources(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write a table that the commands read as DATA, with the sources found.

    The folds that the data give are kept only where none of them divides a source.

    Args:
        path: the table, a CSV file; the names in it are relative to its folder.
        results: of :func:`audit`.

    Raises:
        StapesError: it cannot be written.
    """
    rows = results["clips"]
    folds = {(row["source"], row["fold"]) for row in rows}
    keeps_folds = len(folds) == len({row["source"] for row in rows})
    optional = ["fold"] if keeps_folds else []
    optional += ["start_seconds", "end_seconds"]
    columns = [name for name in optional if any(row[name] is not None for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_name", "label", "source", *columns])
    for row in rows:
        name = _relative(Path(results["folder"], row["file_name"]), Path(path).parent)
        cells = (quoted(row["label"]), quoted(row["source"]))
        writer.writerow([name, *cells, *(row[column] for column in columns)])
    write_text(path, text.getvalue())


def _row(clip: Clip, source: str) -> dict[str, Any]:
    """A clip as a row of a table."""
    return {
        "file_name": clip.name,
        "label": clip.label,
        "source": source,
        "fold": clip.fold,
        "start_seconds": clip.start_seconds if clip.is_event else None,
        "end_seconds": clip.end_seconds,
    }


def _relative(path: Path, folder: Path) -> str:
    """A file's name as seen from a folder, so that no spreadsheet takes it for a formula."""
    name = os.path.relpath(path, folder).replace(os.sep, "/")
    return f"./{name}" if name.startswith(FORMULA_STARTS) else name


def _hear_all(
    clips: Sequence[Clip], *, progress: Progress
) -> tuple[list[Clip], list[Heard], list[Finding], list[Skip]]:
    """What is kept of the clips that can be read, what is wrong with them, and the others."""
    kept, heard, skipped = list[Clip](), list[Heard](), list[Skip]()
    findings: list[Finding] = []
    for clip, result in zip(clips, in_threads(_hear, clips), strict=True):
        if isinstance(result, Skip):
            skipped.append(result)
        else:
            one, flags, note = result
            findings += [Finding(flag, (len(kept),), note=note) for flag in flags]
            kept.append(clip)
            heard.append(one)
        progress("listening", len(kept) + len(skipped), len(clips), "")
    return kept, heard, findings, skipped


def _hear(clip: Clip) -> tuple[Heard, list[str], str] | Skip:
    """What is kept of a clip, and what is wrong with it: flags and a note."""
    recording = read_clip(clip, sample_rate=RATE_HZ)
    if isinstance(recording, Skip):
        return recording
    one = hear(recording.waveform)
    flags = [*recording.flags, *(["silent"] if one.key is None else [])]
    return one, flags, "; ".join(recording.notes)


def _fetch(clip: Clip) -> Waveform:
    """The waveform of a clip that could be read before; empty if that has changed."""
    recording = read_clip(clip, sample_rate=RATE_HZ)
    return recording.waveform if isinstance(recording, audio.Recording) else np.zeros(0, np.float32)


def _with_same_bytes(clips: Sequence[Clip], findings: Sequence[Finding]) -> list[Finding]:
    """The findings, with "same bytes" for copies that are so to the last byte."""
    copies = [f for f in findings if f.kind == "same samples"]
    groups = same_files(list(dict.fromkeys(clips[i].path for f in copies for i in f.clips)))
    number = {path: n for n, group in enumerate(groups) for path in group}

    def to_the_byte(finding: Finding) -> bool:
        numbers = {number.get(clips[i].path) for i in finding.clips}
        return finding.kind == "same samples" and len(numbers) == 1 and None not in numbers

    return [replace(f, kind="same bytes") if to_the_byte(f) else f for f in findings]


def _count(clips: Sequence[Clip], findings: Sequence[Finding]) -> dict[str, int]:
    """How often each kind and each concern was found."""
    counts = Counter(finding.kind for finding in findings)
    for finding in findings:
        counts.update(_concerns([clips[i] for i in finding.clips]))
    return dict(counts)


def _concerns(clips: Sequence[Clip]) -> list[str]:
    return [name for name, of in CONCERNS.items() if len({of(clip) for clip in clips} - {None}) > 1]


def _words(clips: Sequence[Clip], finding: Finding) -> str:
    """A finding in one clause."""
    names = [printable(clip.title) for clip in clips]
    where = finding.alignment
    if len(names) == 1:
        return f"{names[0]}: {finding.note or f'is {finding.kind}'}"
    if where is None:
        what = "the same file" if finding.kind == "same bytes" else "the same samples"
        those = " and ".join(names) if len(names) == 2 else listing(names)
        return f"{those} hold {what}"
    changes = (
        f"{where.gain_db:+.1f} dB".replace("-", "\N{MINUS SIGN}")
        if abs(where.gain_db) >= 0.5
        else ""
    )
    changes += (", inverted" if changes else "inverted") if where.inverted else ""
    aside = f"similarity {where.similarity:.2f}" + (f", {changes}" if changes else "")
    if finding.kind == "same audio":
        return f"{names[1]} is the same audio as {names[0]} ({aside})"
    start = where.start_seconds
    first, second = (max(t, 0.0) for t in (start, start - where.offset_seconds))
    return (
        f"{where.shared_seconds:.1f} s of {names[0]} from {first:.1f} s on are in {names[1]} "
        f"from {second:.1f} s on ({aside})"
    )


def _concern_words(clips: Sequence[Clip]) -> list[str]:
    """What is bad about sharing audio, clause by clause."""
    labels = sorted({clip.label for clip in clips})
    folds = sorted({clip.fold for clip in clips if clip.fold is not None})
    words = {
        "two labels": f"their labels are {listing(labels)}",
        "train and test": "they are in train and in test",
        "two folds": f"they are in folds {listing([str(fold) for fold in folds])}",
    }
    return [words[name] for name in _concerns(clips)]
