"""What simple rules make of the same clips: a result must be better than these to mean anything.

Every rule learns from the clips that the network learnt from, and judges those that it judged.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, rfft

from stapes import evaluation
from stapes.clips import Clip
from stapes.progress import Progress, silent
from stapes.segments import Waveform, pad
from stapes.splits import Pairs

Features = NDArray[np.float64]
MAJORITY = "majority class"
LOUDNESS = "loudness only"
SPECTRUM = "average spectrum + logistic regression"
MFCC = "MFCC statistics + SVM"
NAMES = (MAJORITY, LOUDNESS, SPECTRUM, MFCC)

FRAME_SECONDS = 0.032
N_BANDS, N_COEFFICIENTS = 40, 20
MOST_FRAMES = 20_000
"""Frames of a recording (5 minutes); of longer ones they are further apart."""

FRAMES_AT_ONCE = 1024
"""Frames transformed at a time: bounds the memory."""

SILENCE_DB = -120.0
"""Levels are not followed below."""


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """What the rules know of each clip, a row a clip.

    Attributes:
        level: RMS and peak in dB of full scale [N, 2].
        spectrum: mean power of the bands in dB [N, N_BANDS].
        mfcc: mean and deviation of the coefficients, then of their differences
            [N, 4 * N_COEFFICIENTS].
    """

    level: Features
    spectrum: Features
    mfcc: Features


def features(
    waveforms: Sequence[Waveform], *, sample_rate: int, progress: Progress = silent
) -> ClipFeatures:
    """Levels, average spectra and MFCC statistics of recordings of any length.

    Args:
        waveforms: [T] each.
        sample_rate: Hz.
        progress: told after each.
    """
    filters = mel_filters(frame_length(sample_rate), sample_rate=sample_rate)
    rows = []
    for done, waveform in enumerate(waveforms, start=1):
        power = band_power(waveform, filters)
        rows.append((level(waveform), _db(power.mean(axis=0)), mfcc_statistics(_db(power))))
        progress("simple rules", done, len(waveforms), "")
    return ClipFeatures(*(np.stack(column) for column in zip(*rows, strict=True)))


def level(waveform: Waveform) -> Features:
    """RMS and peak in dB of full scale: [T] -> [2]."""
    samples = waveform.astype(np.float64) if len(waveform) else np.zeros(1)
    return _db(np.array([np.mean(samples**2), np.max(samples**2)]))


def frame_length(sample_rate: int) -> int:
    """Samples of a frame: the power of two nearest to 32 ms, at least 128.

    >>> frame_length(16_000), frame_length(44_100)
    (512, 1024)
    """
    return int(2 ** max(round(np.log2(FRAME_SECONDS * sample_rate)), 7))


def mel_filters(length: int, *, sample_rate: int) -> Features:
    """Triangles of height 1, evenly spaced in mel from 0 to half the sample rate.

    The mel of f Hz is 2595 log10(1 + f / 700) (O'Shaughnessy 1987).

    Args:
        length: of a frame, in samples.
        sample_rate: Hz.

    Returns:
        [length // 2 + 1, N_BANDS].
    """
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, N_BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(length, 1 / sample_rate)[:, None]
    below, centre, above = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins - below) / (centre - below), (above - bins) / (above - centre)
    triangles: Features = np.maximum(np.minimum(rising, falling), 0)
    return triangles


def band_power(waveform: Waveform, filters: Features) -> Features:
    """Power in every band and frame, by Hann windows that half overlap.

    Args:
        waveform: [T]; a short one is padded to one frame.
        filters: [F, N_BANDS] of frames of 2 (F - 1) samples.

    Returns:
        [n_frames, N_BANDS].
    """
    length = 2 * (len(filters) - 1)
    padded = pad(waveform, segment_length=length)
    hop_length = max(length // 2, (len(padded) - length) // MOST_FRAMES + 1)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop_length]
    window = np.hanning(length + 1)[:-1]
    window = (window / window.sum()).astype(np.float32)
    blocks = []
    for i in range(0, len(frames), FRAMES_AT_ONCE):
        spectrum = rfft(frames[i : i + FRAMES_AT_ONCE] * window)
        blocks.append((spectrum.real**2 + spectrum.imag**2) @ filters)
    return np.concatenate(blocks)


def mfcc_statistics(bands_db: Features) -> Features:
    """Mean and deviation over time of the cepstrum and of its differences from frame to frame.

    The cepstrum is the orthonormal discrete cosine transform (type 2) of the bands in dB (Davis
    and Mermelstein 1980).

    Args:
        bands_db: [n_frames, N_BANDS].

    Returns:
        [4 * N_COEFFICIENTS].
    """
    cepstrum = dct(bands_db, norm="ortho")[:, :N_COEFFICIENTS]
    steps = np.diff(cepstrum, axis=0) if len(cepstrum) > 1 else np.zeros_like(cepstrum)
    parts = [stat(axis=0) for part in (cepstrum, steps) for stat in (part.mean, part.std)]
    return np.concatenate(parts)


def cross_predict(
    clips: Sequence[Clip],
    waveforms: Sequence[Waveform],
    *,
    sample_rate: int,
    pairs: Pairs,
    progress: Progress = silent,
) -> dict[str, NDArray[np.int64]]:
    """What every rule calls the clips of each fold, after learning from that fold's other clips.

    Args:
        clips: all clips [N].
        waveforms: theirs.
        sample_rate: Hz.
        pairs: indices to learn from and to judge, a pair a fold.
        progress: told after each clip.

    Returns:
        For each of :data:`NAMES` the index of a class, of the sorted labels of all clips, for each
        clip [N]; -1 for clips of no fold.
    """
    _, targets = np.unique([clip.label for clip in clips], return_inverse=True)
    known = features(waveforms, sample_rate=sample_rate, progress=progress)
    rules = _rules(known)
    answers = {name: np.full(len(clips), -1, np.int64) for name in rules}
    for training, held in pairs:
        learnt, asked = np.asarray(training, np.int64), np.asarray(held, np.int64)
        one_class = len(set(targets[learnt].tolist())) == 1
        for name, (table, make) in rules.items() if len(asked) else ():
            model = rules[MAJORITY][1]() if one_class else make()
            with warnings.catch_warnings():  # that there are many classes is nobody's mistake
                warnings.filterwarnings("ignore", message="The number of unique classes")
                model.fit(table[learnt], targets[learnt])
            answers[name][asked] = model.predict(table[asked])
    return answers


def summarise(
    predictions: Mapping[str, NDArray[np.int64]],
    clips: Sequence[Clip],
    *,
    judged: Sequence[Clip],
    right: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """How good every rule is, and whether a network is better on the same clips.

    Args:
        predictions: what :func:`cross_predict` gave for ``clips``.
        clips: those [N].
        judged: the clips that the network judged [M], each once for every seed.
        right: whether it was right [M].

    Returns:
        For every rule ``name``, ``clips`` (accuracy, balanced_accuracy, n, interval) over the
        clips that were judged, each once, and the ``difference`` of the network from it. The rule
        is ``beaten`` if the whole interval lies above 0 and chance explains it no better than that.
    """
    labels, targets = np.unique([clip.label for clip in clips], return_inverse=True)
    place = {clip: i for i, clip in enumerate(clips)}
    rows = np.array([place[clip] for clip in judged], np.int64)
    once = np.unique(rows)
    sources = [clips[i].source for i in once]
    summaries = []
    for name, called in predictions.items():
        matrix = evaluation.confusion(targets[once], called[once], n_classes=len(labels))
        correct = called == targets
        told = {
            "accuracy": evaluation.accuracy(targets[once], called[once]),
            "balanced_accuracy": evaluation.balanced_accuracy(matrix),
            "n": len(once),
            "interval": list(evaluation.interval(correct[once], sources)),
        }
        difference = evaluation.compare(right, correct[rows], [clip.source for clip in judged])
        beaten = evaluation.surely(difference) > 0
        summaries.append(
            {"name": name, "clips": told, "difference": difference | {"beaten": beaten}}
        )
    return summaries


def _rules(known: ClipFeatures) -> dict[str, tuple[Features, Callable[[], Any]]]:
    """Each rule's features, and what makes an unfitted classifier for them."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    def logistic() -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

    def machine() -> Any:
        return make_pipeline(StandardScaler(), SVC(C=10))

    return {
        MAJORITY: (known.level, lambda: DummyClassifier(strategy="most_frequent")),
        LOUDNESS: (known.level, logistic),
        SPECTRUM: (known.spectrum, logistic),
        MFCC: (known.mfcc, machine),
    }


def _db(power: Features) -> Features:
    """Power in dB, silence at a floor."""
    levels: Features = 10 * np.log10(np.maximum(power, 10 ** (SILENCE_DB / 10)))
    return levels
