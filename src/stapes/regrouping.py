"""Findings of the audit -> sources that stay together, and what to know of the recordings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from stapes.auditing import find_sources
from stapes.auditing import leaks as divided
from stapes.clips import Clip, listing
from stapes.copies import is_constant
from stapes.dataset import DecodedDataset
from stapes.negatives import is_negative
from stapes.sharing import Finding
from stapes.splits import check_undivided

Leaks = Literal["refuse", "regroup", "allow"]


def regrouped(decoded: DecodedDataset, findings: Sequence[Finding], leaks: Leaks) -> DecodedDataset:
    """Join the sources of clips that share audio, and look at the data's own split.

    A recording that is on both sides as a whole is an error in the data. Clips that only overlap
    are not: folds and parts leave out of the training what shares a source with those judged.
    """
    clips = decoded.clips
    if leaks == "refuse":
        copies = [finding for finding in findings if finding.kind != "overlap"]
        check_undivided(_with_sources(clips, copies))
    told = (
        *_told(clips, findings, leaks),
        *_contradictions(clips, findings),
        *_dead(decoded),
    )
    joined = _with_sources(clips, findings)
    return replace(decoded, clips=joined, warnings=(*decoded.warnings, *told))


def _dead(decoded: DecodedDataset) -> tuple[str, ...]:
    """What to know of recordings of a class in which nothing is heard."""
    dead = [
        clip.title
        for clip, waveform in zip(decoded.clips, decoded.waveforms, strict=True)
        if is_constant(waveform) and not is_negative(clip.label)
    ]
    if not dead:
        return ()
    told = f"silent or constant from beginning to end: {len(dead)} ({listing(dead, n_shown=3)}); "
    return (told + "they say nothing of their class: remove them, for they are counted",)


def _contradictions(clips: Sequence[Clip], findings: Sequence[Finding]) -> tuple[str, ...]:
    """What to know of clips that share audio and are called by different names."""
    found = [f.clips for f in findings if len({clips[i].label for i in f.clips}) > 1]
    if not found:
        return ()
    pairs = [" = ".join(clips[i].title for i in indices[:2]) for indices in found]
    told = f"recordings with different labels share audio ({_n_pairs(found)}): "
    return (told + listing(pairs, n_shown=3) + ": correct the labels, or remove one of each",)


def _with_sources(clips: Sequence[Clip], findings: Sequence[Finding]) -> tuple[Clip, ...]:
    sources = find_sources(clips, findings)
    return tuple(replace(clip, source=s) for clip, s in zip(clips, sources, strict=True))


def _told(clips: Sequence[Clip], findings: Sequence[Finding], leaks: Leaks) -> tuple[str, ...]:
    """What to know of clips that share audio and were taken for strangers."""
    new = [f for f in findings if len({clips[i].source for i in f.clips}) > 1]
    if not new:
        return ()
    pairs = [" = ".join(clips[i].title for i in finding.clips[:2]) for finding in new]
    told = f"recordings that share audio count as one source ({_n_pairs(new)}): "
    crossing = [
        *divided(clips, new, [clip.fold for clip in clips]),
        *divided(clips, new, [clip.part for clip in clips]),
    ]
    if not crossing:
        return (told + listing(pairs, n_shown=3),)
    action = (
        "RESULTS ARE TOO GOOD"
        if leaks == "allow"
        else "nothing is learnt from what shares audio with the part that is judged"
    )
    return (
        told + listing(pairs, n_shown=3),
        f"across the split that came with the data: {_n_pairs(crossing)} of these; {action}",
    )


def _n_pairs(pairs: Sequence[object]) -> str:
    return "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
