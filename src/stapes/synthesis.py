"""Barks and meows made up on the spot, for machines that have no recordings yet.

A small source-filter model: a harmonic or noisy source, shaped by the resonances of a vocal
tract, heard through a room, a microphone and a background. What could give the label away
without listening (level, length, microphone, noise) is drawn alike for both classes.

The model's facts and their sources; the exact ranges are ours, chosen to look like real calls:

* Barks are graded from harsh, low and unmodulated to tonal, high and modulated: Yin and McCowan
  (2004), Animal Behaviour 68, doi:10.1016/j.anbehav.2003.07.016. They are short, loud and
  broadband, part harmonic and part noise: Riede et al. (1999), JASA 105, p. 1203.
* A meow is voiced, with a mouth that opens and closes ("i-a-u"); a trill is short, voiced, rolled,
  with a closed mouth; a hiss has no voice: Schötz, van de Weijer and Eklund (2017), VIHAR, pp. 5-6.
  Its pitch rises and falls with the occasion: the same (2019), doi:10.7287/peerj.preprints.27926.
* Formants follow from the length of the vocal tract, and that from the body: Riede and Fitch
  (1999), Journal of Experimental Biology 202, pp. 2859-2867.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from stapes.config import SAMPLE_RATE
from stapes.errors import StapesError, UsageError
from stapes.files import write_bytes, write_text
from stapes.segments import Waveform

Array = NDArray[np.floating[Any]]
Call = Callable[..., Waveform]

CLASSES = ("bark", "meow")
_SPEED_OF_SOUND = 350.0  # m/s in the warm, moist air of a vocal tract
_CONTROL_LENGTH = 64  # samples between the points at which slow gains are computed
# Mouth shapes of a meow as factors of a uniform tube's first three formants: m, i, a, o, u.
_VOWELS = np.array(
    [[0.35, 0.60, 0.8], [0.45, 1.10, 1.1], [1.10, 0.75, 1.0], [0.75, 0.50, 0.9], [0.50, 0.40, 0.9]]
)


def bark(rng: np.random.Generator, sample_rate: int, *, size: float = 0.5) -> Waveform:
    """Synthesise one bark: a short, rough burst with a strong onset and a falling pitch.

    Args:
        rng: the generator every choice is drawn from.
        sample_rate: Hz.
        size: body size of the dog from 0 (small, high) to 1 (large, low).

    Returns:
        The waveform [T], T between 0.08 and 0.25 s, with a peak of 1.
    """
    harshness = rng.uniform(0.2, 1.0)
    time = _time(rng.uniform(0.08, 0.25), sample_rate)
    peak_hz = _between(900, 300, 0.7 * size + 0.3 * harshness) * rng.uniform(0.92, 1.08)
    f0 = peak_hz * (1 - (0.45 - 0.3 * harshness) * np.abs(time - 0.35) / 0.65)
    f0 *= 1 + 0.06 * harshness * _wobble(time.size, rng, step=sample_rate // 250)
    formants = _tube(_between(0.09, 0.22, size)) * rng.uniform(0.95, 1.05)
    voice = _voiced(f0, formants, sample_rate=sample_rate, tilt_db=-4.0)
    subharmonic = 1 + 0.5 * harshness * np.sin(np.cumsum(np.pi * f0 / sample_rate))
    sound = voice * subharmonic
    sound += _level(-22, 2, harshness) * _noise(time.size, formants, rng, sample_rate)
    return _unit(sound * _envelope(time, attack=0.08, release=0.6) * np.exp(-1.5 * time))


def _howl(rng: np.random.Generator, sample_rate: int, *, size: float = 0.5) -> Waveform:
    """A howl or yelp: the long or high, tonal call of a dog, 0.2 to 1.2 s."""
    seconds = rng.uniform(0.2, 1.2)
    time = _time(seconds, sample_rate)
    # The shorter the call, the higher: a yelp is a quick cry, a howl a slow one.
    peak_hz = _between(900, 350, size) * _between(1.6, 1.0, min(seconds, 1.0))
    f0 = peak_hz * (1 - 0.5 * np.clip(0.15 - time, 0, 1) / 0.15 - 0.25 * time**2)
    f0 *= 1 + 0.01 * np.sin(2 * np.pi * rng.uniform(4, 7) * time * seconds)
    formants = _tube(_between(0.10, 0.24, size)) * np.array([[0.8], [0.7], [0.9]])
    sound = _voiced(f0, formants, sample_rate=sample_rate, tilt_db=-9.0)
    sound += 0.05 * _noise(time.size, formants, rng, sample_rate)
    return _unit(sound * _envelope(time, attack=0.1, release=0.3))


def meow(rng: np.random.Generator, sample_rate: int, *, size: float = 0.5) -> Waveform:
    """Synthesise one meow: a voiced call whose pitch rises and falls through m-i-a-o-u.

    Args:
        rng: the generator every choice is drawn from.
        sample_rate: Hz.
        size: body size of the cat from 0 (kitten) to 1.

    Returns:
        The waveform [T], T between 0.25 and 1.2 s, with a peak of 1.
    """
    time = _time(rng.uniform(0.25, 1.2), sample_rate)
    summit = rng.uniform(0.15, 0.7)
    side = np.where(time < summit, summit, 1 - summit)
    arch = 1 - ((time - summit) / side) ** 2
    f0 = _between(800, 420, size) * rng.uniform(0.92, 1.08) * (0.7 + 0.3 * arch)
    f0 *= 1 + rng.uniform(0.002, 0.02) * _wobble(time.size, rng, step=sample_rate // 100)
    places = np.array([0.0, *np.sort(rng.uniform(0.05, 0.95, 3)), 1.0])
    tube = _tube(_between(0.065, 0.095, size))
    formants = tube * np.stack([np.interp(time, places, factors) for factors in _VOWELS.T])
    sound = _voiced(f0, formants, sample_rate=sample_rate, tilt_db=rng.uniform(-7, -3))
    sound += _level(-35, -15, rng.uniform()) * _noise(time.size, tube, rng, sample_rate)
    return _unit(sound * _envelope(time, attack=0.15, release=0.35) * (0.4 + 0.6 * arch))


def _trill(rng: np.random.Generator, sample_rate: int, *, size: float = 0.5) -> Waveform:
    """A trill: a short, rolled call of a cat with its mouth closed, 0.12 to 0.4 s."""
    seconds = rng.uniform(0.12, 0.4)
    time = _time(seconds, sample_rate)
    f0 = _between(600, 330, size) * (0.8 + rng.uniform(0.1, 0.7) * time**2)
    rolled = 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(20, 32) * seconds * time)
    formants = _tube(_between(0.065, 0.095, size)) * _VOWELS[0][:, None]
    sound = _voiced(f0, formants, sample_rate=sample_rate, tilt_db=-6.0)
    return _unit(sound * rolled * _envelope(time, attack=0.2, release=0.3))


def _hiss(rng: np.random.Generator, sample_rate: int, *, size: float = 0.5) -> Waveform:
    """A hiss: the voiceless call of a cat, broad noise above 1 kHz, 0.15 to 0.9 s."""
    time = _time(rng.uniform(0.15, 0.9), sample_rate)
    formants = _tube(_between(0.065, 0.095, size))[1:] * rng.uniform(0.8, 1.1)
    sound = _noise(time.size, formants, rng, sample_rate)
    return _unit(sound * _envelope(time, attack=0.15, release=0.5))


# How an animal calls: which calls how often, and the pause in seconds before the next one.
_REPERTOIRE: dict[str, tuple[tuple[Call, ...], tuple[float, ...], tuple[float, float]]] = {
    "bark": ((bark, _howl), (0.85, 0.15), (0.12, 0.6)),
    "meow": ((meow, _trill, _hiss), (0.75, 0.15, 0.10), (0.15, 0.9)),
}


def clip(
    label: str,
    rng: np.random.Generator,
    *,
    seconds: float | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> Waveform:
    """Synthesise one recording: calls of one animal in a room, with noise, through a microphone.

    Args:
        label: "bark" or "meow".
        rng: the generator every choice is drawn from.
        seconds: length, above 0; drawn from 1 to 6 if not given.
        sample_rate: Hz.

    Returns:
        The waveform [T], T = round(seconds * sample_rate), with a peak from 0.1 to 1.

    Raises:
        ValueError: the label is not one of ``CLASSES``.

    >>> clip("bark", np.random.default_rng(0), seconds=1.5).shape
    (24000,)
    """
    if label not in _REPERTOIRE:
        raise ValueError(f"label is {label!r}: give one of {', '.join(_REPERTOIRE)}")
    seconds = rng.uniform(1.0, 6.0) if seconds is None else seconds
    length = round(seconds * sample_rate)
    calls = _room(_calls(label, length, rng, sample_rate), rng, sample_rate)
    background = _background(length, rng, sample_rate)
    mixed = _unit_rms(calls) + _level(-35, -3, rng.uniform()) * _unit_rms(background)
    return _unit(_microphone(mixed, rng, sample_rate)) * np.float32(_level(-20, 0, rng.uniform()))


def write_demo(
    folder: str | Path, *, n_sources: int = 120, seed: int = 0, overwrite: bool = False
) -> Path:
    """Write synthesised recordings as a data set: two class folders and a ``metadata.csv``.

    Every fourth source gives two recordings that overlap, as happens in real collections, so that
    only a split by source is honest. The column ``fold`` (1-5) never splits a source.

    Args:
        folder: where to write; made if missing.
        n_sources: recordings to synthesise before any is cut in two, at least 2.
        seed: equal seeds give equal bytes.
        overwrite: replace recordings that an earlier call left in the folder.

    Returns:
        The folder.

    Raises:
        UsageError: fewer than two sources, or the folder is not empty.
        StapesError: the folder cannot be written.
    """
    if n_sources < 2:
        raise UsageError(f"n_sources is {n_sources}: give at least 2, one for each class")
    folder = Path(folder)
    _prepare(folder, overwrite=overwrite)
    rows = [row for index in range(n_sources) for row in _write_source(folder, index, seed=seed)]
    write_text(
        folder / "metadata.csv", "\n".join(["file_name,label,source,fold", *sorted(rows), ""])
    )
    return folder


def _prepare(folder: Path, *, overwrite: bool) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UsageError(f"{folder}: is not empty; give another folder or --overwrite")
    for label in CLASSES:
        try:
            (folder / label).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StapesError(
                f"{folder}: cannot be made ({error.strerror}); give another"
            ) from error
        # Only files of our own making go: a stale one would be missing from the new metadata.
        for path in (folder / label).glob(f"{label}_[0-9]*_[ab].wav"):
            path.unlink()


def _write_source(folder: Path, index: int, *, seed: int) -> list[str]:
    """Write the one or two recordings of a source; return their rows of ``metadata.csv``."""
    label, nth = CLASSES[index % 2], index // 2
    # One generator a source: source 7 sounds the same however many there are.
    rng = np.random.default_rng([seed, index])
    if nth % 4 == 0:
        whole = clip(label, rng, seconds=rng.uniform(2.0, 7.0))
        end, start = (rng.uniform((0.55, 0.1), (0.9, 0.45)) * whole.size).astype(int)
        pieces = {"a": whole[:end], "b": whole[start:]}
    else:
        pieces = {"a": clip(label, rng)}
    rows = []
    for letter, piece in pieces.items():
        name = f"{label}/{label}_{index:03d}_{letter}.wav"
        write_bytes(folder / name, _wav(piece))
        rows.append(f"{name},{label},{label}_{index:03d},{nth % 5 + 1}")
    return rows


def _wav(waveform: Waveform) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _calls(label: str, length: int, rng: np.random.Generator, sample_rate: int) -> Array:
    """Calls of one animal one after another, [T], the last one cut at the end."""
    kinds, weights, (shortest, longest) = _REPERTOIRE[label]
    size = rng.uniform()
    track = np.zeros(length)
    start = int(rng.uniform(0, 0.3) * sample_rate)
    while start < length:
        call = kinds[rng.choice(len(kinds), p=weights)](rng, sample_rate, size=size)
        call = call[: length - start] * _level(-8, 0, rng.uniform())
        track[start : start + call.size] += call
        start += call.size + int(rng.uniform(shortest, longest) * sample_rate)
    return track


def _room(dry: Array, rng: np.random.Generator, sample_rate: int) -> Array:
    """Add the echoes of a room: noise that dies away, louder the farther the animal is."""
    decay_seconds = rng.uniform(0.05, 0.6)
    time = np.arange(int(decay_seconds * sample_rate)) / sample_rate
    echoes = rng.standard_normal(time.size) * 10 ** (-3 * time / decay_seconds)
    response = np.concatenate(
        ([1.0], _level(-30, 0, rng.uniform()) * echoes / np.linalg.norm(echoes))
    )
    n_fft = _fft_length(dry.size + response.size)
    wet = np.fft.irfft(np.fft.rfft(dry, n_fft) * np.fft.rfft(response, n_fft), n_fft)
    return wet[: dry.size]


def _background(length: int, rng: np.random.Generator, sample_rate: int) -> Array:
    """Noise of any colour, and each with one chance in three: hum, wind and clicks, [T]."""
    tilt_db = rng.uniform(-7, 0)
    white = rng.standard_normal(length)
    sound = _unit_rms(_shaped(white, lambda f: _tilt(f, tilt_db), sample_rate))
    for distractor in (_hum, _wind, _clicks):
        if rng.uniform() < 1 / 3:
            extra = distractor(length, rng, sample_rate)
            sound = sound + _level(-6, 10, rng.uniform()) * _unit_rms(extra)
    return sound


def _hum(length: int, rng: np.random.Generator, sample_rate: int) -> Array:
    time = np.arange(length) / sample_rate
    multiples = np.arange(1, 9)
    strengths = rng.uniform(0, 1, multiples.size) / multiples
    mains = 2 * np.pi * rng.choice([50.0, 60.0]) * time
    hum: Array = strengths @ np.sin(multiples[:, None] * mains)
    return hum


def _wind(length: int, rng: np.random.Generator, sample_rate: int) -> Array:
    rumble = _shaped(rng.standard_normal(length), lambda f: _tilt(f, -10.0), sample_rate)
    return rumble * (1 + _wobble(length, rng, step=sample_rate // 3))


def _clicks(length: int, rng: np.random.Generator, sample_rate: int) -> Array:
    sound = np.zeros(length)
    time = np.arange(sample_rate // 50) / sample_rate
    for start in rng.integers(0, length, rng.integers(1, 8)):
        ring = np.exp(-time * rng.uniform(200, 900)) * rng.standard_normal(time.size)
        sound[start : start + time.size] += ring[: length - start]
    return sound


def _microphone(sound: Array, rng: np.random.Generator, sample_rate: int) -> Array:
    """Colour a sound as a cheap or good microphone would: tilt, low cut, band limit."""
    tilt_db, low_hz = rng.uniform(-4, 4), _between(30, 300, rng.uniform())
    high_hz = _between(3_000, 12_000, rng.uniform())

    def response(frequency: Array) -> Array:
        cuts = (1 + (low_hz / np.maximum(frequency, 1.0)) ** 4) * (1 + (frequency / high_hz) ** 8)
        return np.asarray(_tilt(frequency, tilt_db) / np.sqrt(cuts))

    return _shaped(sound, response, sample_rate)


def _voiced(f0: Array, formants: Array, *, sample_rate: int, tilt_db: float) -> Array:
    """Harmonics of a pitch f0 [T] under resonances [F, T] or [F, 1], all in Hz, [T].

    The source changes by ``tilt_db`` an octave; harmonics close to the Nyquist frequency are left
    out, so nothing aliases.
    """
    rotation = np.exp(2j * np.pi * np.cumsum(f0) / sample_rate)
    coarse = np.arange(0, f0.size, _CONTROL_LENGTH)
    formants = np.broadcast_to(formants, (len(formants), f0.size))[:, coarse]
    partial, sound = np.ones_like(rotation), np.zeros_like(f0)
    for harmonic in range(1, int(sample_rate / 2 / f0.min()) + 1):
        partial = partial * rotation
        frequency = harmonic * f0[coarse]
        gain = _resonance(frequency, formants) * (frequency < 0.475 * sample_rate)
        gain *= 10 ** (tilt_db * np.log2(harmonic) / 20)
        sound += partial.imag * np.interp(np.arange(f0.size), coarse, gain)
    return _unit_rms(sound)


def _noise(length: int, formants: Array, rng: np.random.Generator, sample_rate: int) -> Array:
    """White noise under the resonances [F, 1], with an RMS of 1, [T]."""
    white = rng.standard_normal(length)
    return _unit_rms(_shaped(white, lambda f: _resonance(f, formants), sample_rate))


def _resonance(frequency: Array, formants: Array) -> Array:
    """Gain of a vocal tract at frequencies [N] with formants [F, N] or [F, 1], all in Hz.

    Each formant is a resonance whose width is a fifth of its frequency and at least 100 Hz.
    """
    width = np.maximum(formants / 5, 100.0)
    return np.asarray((1 / (1 + ((frequency - formants) / width) ** 2)).sum(axis=0))


def _tube(length_metres: float) -> Array:
    """First three resonances of a tube closed at the larynx: (2n - 1) c / 4L in Hz, [3, 1]."""
    return np.array([[1.0], [3.0], [5.0]]) * _SPEED_OF_SOUND / (4 * length_metres)


def _shaped(sound: Array, gain: Callable[[Array], Array], sample_rate: int) -> Array:
    """Filter a whole sound by a gain over frequency in Hz, [T] -> [T]."""
    n_fft = _fft_length(sound.size)
    spectrum = np.fft.rfft(sound, n_fft) * gain(np.fft.rfftfreq(n_fft, 1 / sample_rate))
    return np.fft.irfft(spectrum, n_fft)[: sound.size]


def _fft_length(length: int) -> int:
    """Next power of two: an FFT of a prime length takes many times as long."""
    return 1 << (length - 1).bit_length()


def _tilt(frequency: Array, db_per_octave: float) -> Array:
    """Gain that is 1 at 1 kHz and changes by so many dB an octave; flat below 40 Hz."""
    return np.asarray((np.maximum(frequency, 40.0) / 1_000) ** (db_per_octave / 6.02))


def _wobble(length: int, rng: np.random.Generator, *, step: int) -> Array:
    """Smooth noise from -1 to 1 with a new random value every ``step`` samples, [T]."""
    values = rng.uniform(-1, 1, length // step + 2)
    return np.interp(np.arange(length) / step, np.arange(values.size), values)


def _envelope(time: Array, *, attack: float, release: float) -> Array:
    """Rise from 0 to 1 and fall again, over the given shares of the call (time runs 0 to 1)."""
    edge = np.clip(time / attack, 0, 1) * np.clip((1 - time) / release, 0, 1)
    return np.asarray(np.sin(np.pi / 2 * edge) ** 2)


def _time(seconds: float, sample_rate: int) -> Array:
    return np.linspace(0, 1, round(seconds * sample_rate))


def _between(start: float, end: float, share: float) -> float:
    """Go from start to end by equal ratios, as pitch and size are heard."""
    return float(start * (end / start) ** share)


def _level(low_db: float, high_db: float, share: float) -> float:
    return float(10 ** ((low_db + (high_db - low_db) * share) / 20))


def _unit_rms(sound: Array) -> Array:
    return np.asarray(sound / (np.sqrt(np.mean(sound**2)) + 1e-12))


def _unit(sound: Array) -> Waveform:
    return np.asarray(sound / (np.abs(sound).max() + 1e-12), dtype=np.float32)
