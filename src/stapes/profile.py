"""What a recording is like, and in which ways it is unlike all that a model was trained on."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stapes.config import is_number
from stapes.segments import Waveform

FRAME_SECONDS = 0.016
HOP_SECONDS = 0.064
MOST_FRAMES = 256
"""Frames kept of a recording (16 s at the first hop); each time there are more, every other one
is dropped and the hop doubled, so that an hour costs hardly more than half a minute."""

BAND_HZ = 250.0
"""Width of the bands in which content and noise are looked for."""

REFERENCE_HZ = 250.0
"""Wind and hum below this do not decide how loud the content above must be to count."""

CONTENT_DB = 70.0
"""A band this far below the loudest holds nothing: resamplers and codecs leave less."""

LSB = 2.0**-15
"""The last of 16 bits; its rounding makes noise of variance LSB^2 / 12."""

ROUNDING_MARGIN_DB = 9.0
"""By how much content exceeds the rounding noise of 16 bits; triangular dither adds 4.8 dB."""

QUIET_SHARE, LOUD_SHARE = 0.1, 0.1
"""Shares of the frames that tell the noise and the level."""

FULL_SCALE = 0.99
"""Samples from here on are at the end of the scale."""

SILENCE_DB = -120.0
"""Levels are not followed below."""

TAILS = (0.02, 0.5, 0.98)
"""Quantiles of the training recordings that are remembered: the usual, between the unusual."""

FEWEST_RECORDINGS = 20
"""From fewer nothing can be said about what is usual."""

QUIET_PEAK_DB = -50.0
"""Below, 16 bits leave less than 8 for the loudest sound. The network hears no level above."""

CLIPPED_SHARE = 0.01
"""A smaller share of samples at full scale does no harm."""

BANDWIDTH_MARGIN, NOISE_MARGIN_DB, PEAK_MARGIN_DB = 0.05, 1.0, 6.0
"""How far outside of the usual a recording must be, for training sets that are all alike."""

FEW_RECORDINGS = 40
"""With so few the margins are twice as wide, as less is known of what is usual."""

MEASURES = ("level_db", "peak_db", "noise_db", "bandwidth_hz", "clipped_share")


@dataclass(frozen=True, slots=True)
class RecordingProfile:
    """What a recording is like, as the network gets it.

    Attributes:
        level_db: RMS of the loudest tenth, in dB of full scale.
        peak_db: the largest sample, in dB of full scale.
        noise_db: the quiet moments of every band, averaged over the bands in dB, as the level of
            white noise in dB of the peak.
        bandwidth_hz: nothing above; at most half the rate that the network hears at.
        clipped_share: share of the samples at full scale.
        sample_rate_hz: of the file.
    """

    level_db: float
    peak_db: float
    noise_db: float
    bandwidth_hz: float
    clipped_share: float
    sample_rate_hz: int


@dataclass(frozen=True, slots=True)
class TrainingProfile:
    """What the recordings that a model was trained on are like.

    Attributes:
        n_recordings: how many there were.
        sample_rates_hz: that their files have, ascending.
        level_db: quantiles :data:`TAILS` over the recordings, like all that follow; see
            :class:`RecordingProfile`.
        peak_db: of the largest sample.
        noise_db: of the noise.
        bandwidth_hz: of the bandwidth.
        clipped_share: of the share of samples at full scale.
    """

    n_recordings: int
    sample_rates_hz: tuple[int, ...]
    level_db: tuple[float, ...]
    peak_db: tuple[float, ...]
    noise_db: tuple[float, ...]
    bandwidth_hz: tuple[float, ...]
    clipped_share: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = dataclasses.asdict(self).items()
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave.

        Raises:
            ValueError: it was something else.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, Mapping) or sorted(values) != sorted(names):
            raise ValueError(f"a training profile has the keys {', '.join(names)}")
        n, rates = values["n_recordings"], _numbers(values, "sample_rates_hz")
        if not isinstance(n, int) or isinstance(n, bool) or n < 1 or len(rates) < 1:
            raise ValueError(f"a training profile of {n!r} recordings at {rates} Hz")
        quantiles = {name: _numbers(values, name) for name in MEASURES}
        for name, found in quantiles.items():
            if len(found) != len(TAILS) or list(found) != sorted(found):
                raise ValueError(f"{name} is {found}: {len(TAILS)} ascending numbers are wanted")
        return cls(n, tuple(map(int, rates)), **quantiles)


class Profiler:
    """Listens to a recording that comes in blocks; the result does not depend on where they end.

    A few frames are kept, and looked at in the end: at most :data:`MOST_FRAMES`, equally spaced.
    """

    def __init__(self, sample_rate: int) -> None:
        """Nothing was heard yet.

        Args:
            sample_rate: of the blocks, in Hz.
        """
        self._sample_rate = sample_rate
        self._frame_length = 1 << max(2, round(math.log2(FRAME_SECONDS * sample_rate)))
        self._hop = max(self._frame_length, round(HOP_SECONDS * sample_rate))
        self._frames: list[Waveform] = []
        self._rest = np.zeros(0, np.float32)
        self._next = self._n_samples = self._n_clipped = 0
        self._peak = 0.0

    def add(self, block: Waveform) -> None:
        """Listen to the next samples, [T]."""
        if not len(block):
            return
        peak = float(max(block.max(), -block.min()))
        self._peak = max(self._peak, peak)
        if peak >= FULL_SCALE:
            self._n_clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        self._n_samples += len(block)
        self._keep_frames(np.concatenate([self._rest, block]) if len(self._rest) else block)

    def _keep_frames(self, waveform: Waveform) -> None:
        """Keep the frames in what is left of the last block and the next."""
        first = self._n_samples - len(waveform)
        while self._next + self._frame_length <= self._n_samples:
            start = self._next - first
            self._frames.append(waveform[start : start + self._frame_length].copy())
            if len(self._frames) > MOST_FRAMES:
                self._frames = self._frames[::2]
                self._hop *= 2
            self._next = len(self._frames) * self._hop
        self._rest = waveform[max(self._next - first, 0) :].copy()

    def result(self, *, sample_rate_hz: int | None = None) -> RecordingProfile:
        """What the recording is like.

        Args:
            sample_rate_hz: of the file, where it is not that of the blocks.
        """
        bands = self._bands()
        edges_hz = np.arange(1, bands.shape[1] + 1) / bands.shape[1] * self._sample_rate / 2
        energies = np.sort(bands.sum(axis=1))
        peak_db = _db(self._peak**2)
        return RecordingProfile(
            level_db=_db(energies[-_count(LOUD_SHARE, energies) :].mean()),
            peak_db=peak_db,
            noise_db=_noise_db(bands) - peak_db,
            bandwidth_hz=_bandwidth_hz(bands.mean(axis=0), edges_hz),
            clipped_share=self._n_clipped / max(self._n_samples, 1),
            sample_rate_hz=sample_rate_hz or self._sample_rate,
        )

    def _bands(self) -> NDArray[np.float32]:
        """Power of the frames in equal bands up to half the rate: [N, B], their sum mean square."""
        length = self._frame_length
        short = np.zeros(length, np.float32)  # for what is shorter than a frame
        short[: len(self._rest)] = self._rest[:length]
        frames = np.concatenate(self._frames or [short]).reshape(-1, length)
        window = np.hanning(length + 1)[:-1].astype(np.float32)
        spectra = np.fft.rfft(frames * window)[:, 1:]  # without the mean
        power = np.square(spectra.real) + np.square(spectra.imag)
        n_bins = power.shape[1]
        width = 1 << max(0, round(math.log2(BAND_HZ * 2 * n_bins / self._sample_rate)))
        width = min(width, n_bins)
        scale = 2 / (length * np.square(window).sum())
        weights = np.full(width, scale, np.float32)
        bands: NDArray[np.float32] = power.reshape(len(frames), -1, width) @ weights
        return bands


def describe(profiles: Sequence[RecordingProfile]) -> TrainingProfile:
    """What recordings are like together, in a few numbers.

    Raises:
        ValueError: there are none.
    """
    if not profiles:
        raise ValueError("no recordings to describe")
    rates = sorted({profile.sample_rate_hz for profile in profiles})
    columns = {name: [getattr(p, name) for p in profiles] for name in MEASURES}
    quantiles = {
        name: tuple(np.quantile(column, TAILS).tolist()) for name, column in columns.items()
    }
    return TrainingProfile(len(profiles), tuple(rates), **quantiles)


def profile(
    waveform: Waveform, *, sample_rate: int, sample_rate_hz: int | None = None
) -> RecordingProfile:
    """What a waveform [T] is like; see :class:`Profiler`."""
    profiler = Profiler(sample_rate)
    profiler.add(waveform)
    return profiler.result(sample_rate_hz=sample_rate_hz)


def shifts(training: TrainingProfile, recording: RecordingProfile) -> tuple[tuple[str, str], ...]:
    """In which ways a recording is unlike the training recordings: a flag and a sentence for each.

    "quiet", "clipped", "narrow-band", "noisy"; nothing of too few training recordings.
    """
    if training.n_recordings < FEWEST_RECORDINGS:
        return ()
    # What is near the last bit, or cut at the ends of the scale, cannot be measured further.
    level = {"quiet": _quiet(training, recording), "clipped": _clipped(training, recording)}
    content = {"narrow-band": _narrow(training, recording), "noisy": _noisy(training, recording)}
    found = {flag: sentence for flag, sentence in level.items() if sentence}
    if not found:
        found = {flag: sentence for flag, sentence in content.items() if sentence}
    return tuple(found.items())


def _quiet(training: TrainingProfile, recording: RecordingProfile) -> str:
    usual = training.peak_db[0]
    if recording.peak_db >= min(QUIET_PEAK_DB, usual - PEAK_MARGIN_DB):
        return ""
    return (
        f"the loudest sample is at {recording.peak_db:.0f} dB of full scale, so rounding is loud "
        f"beside it; in the training set it was at {usual:.0f} dB or above"
    )


def _clipped(training: TrainingProfile, recording: RecordingProfile) -> str:
    usual = training.clipped_share[-1]
    if recording.clipped_share <= max(CLIPPED_SHARE, 2 * usual):
        return ""
    return (
        f"overdriven: {recording.clipped_share:.1%} of the samples are at full scale; in the "
        f"training set {'at most ' + format(usual, '.1%') if usual >= 0.0005 else 'hardly any'}"
    )


def _narrow(training: TrainingProfile, recording: RecordingProfile) -> str:
    usual = training.bandwidth_hz[0]
    if recording.bandwidth_hz >= usual * (1 - BANDWIDTH_MARGIN * _doubt(training)):
        return ""
    rate = recording.sample_rate_hz
    why = f" (its file has {rate:,} samples a second)" if rate < 2 * usual else ""
    return (
        f"nothing above {_khz(recording.bandwidth_hz)} in this recording{why}; the training set "
        f"had, up to {_khz(usual)} at least"
    )


def _noisy(training: TrainingProfile, recording: RecordingProfile) -> str:
    usual = training.noise_db[-1]
    if recording.noise_db <= usual + NOISE_MARGIN_DB * _doubt(training):
        return ""
    return (
        f"noisy: the background is only {-recording.noise_db:.0f} dB below the peak; in the "
        f"training set {-usual:.0f} dB or more"
    )


def _doubt(training: TrainingProfile) -> float:
    """By what margins grow where few recordings say what is usual; 1 for many."""
    return 1 + FEW_RECORDINGS / training.n_recordings


def _khz(hertz: float) -> str:
    return f"{hertz / 1000:.1f} kHz".replace(".0 ", " ")


def _db(power: float | np.floating[Any]) -> float:
    return max(10 * math.log10(max(float(power), 1e-30)), SILENCE_DB)


def _count(share: float, values: NDArray[Any]) -> int:
    return max(1, round(share * len(values)))


def _noise_db(bands: NDArray[np.float32]) -> float:
    """Level of the white noise that is as loud as the quiet moments of the bands on average.

    Averaged in dB, so that a hum or a tone that never ends is not taken for noise.
    """
    place = _count(QUIET_SHARE, bands) - 1
    quiet = np.partition(bands, place, axis=0)[place] * bands.shape[1]
    return max(float(np.mean(10 * np.log10(np.maximum(quiet, 1e-12)))), SILENCE_DB)


def _bandwidth_hz(power: NDArray[np.float32], edges_hz: NDArray[np.float64]) -> float:
    """Upper edge of the highest band with anything in it; 0 for silence.

    Args:
        power: mean power in each band [B].
        edges_hz: upper edges [B].
    """
    loudest = power[edges_hz > REFERENCE_HZ].max(initial=0.0)
    rounding = LSB**2 / 12 / len(power) * 10 ** (ROUNDING_MARGIN_DB / 10)
    content = np.flatnonzero(power > max(loudest * 10 ** (-CONTENT_DB / 10), rounding))
    return float(edges_hz[content[-1]]) if len(content) else 0.0


def _numbers(values: Mapping[str, Any], name: str) -> tuple[float, ...]:
    found = values[name]
    if not isinstance(found, list | tuple) or not all(map(is_number, found)):
        raise ValueError(f"{name} is {found!r}: a list of numbers is wanted")
    return tuple(found)
