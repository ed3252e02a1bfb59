"""The shipped model on recordings degraded in ways that were never used in training.

python benchmarks/robustness.py DATA [--model cats-dogs]

The model that comes with the package learnt from these recordings, so only the drops say something;
recordings from elsewhere that it has not learnt from may be given as well.

Writes benchmarks/results/robustness.json.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr

import presenting
import stapes
from stapes import experiment
from stapes.measurement import measure, summarise
from stapes.progress import silent
from stapes.segments import Waveform

RATE = 16_000
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", default="cats-dogs")
    given = parser.parse_args()
    network = stapes.load(given.model).network
    decoded, _ = experiment.read(given.data, silent, config=network.config)
    rng = np.random.default_rng(SEED)
    results = {}
    for name, degrade in DEGRADATIONS.items():
        waveforms = [degrade(waveform, rng) for waveform in decoded.waveforms]
        metrics = summarise(measure(network, decoded.clips, waveforms))
        keys = ("accuracy", "balanced_accuracy", "interval", "n", "recall")
        results[name] = {p: {k: metrics[p][k] for k in keys} for p in ("clips", "segments")}
    clean = results["as recorded"]
    rows = []
    for name, result in results.items():
        shares = [result[part]["accuracy"] for part in ("clips", "segments")]
        drops = [result[p]["accuracy"] - clean[p]["accuracy"] for p in ("clips", "segments")]
        rows.append((name, *(f"{s:.3f}" for s in shares), *(f"{d:+.3f}" for d in drops)))
    presenting.show("Degraded", ("", "clips", "segments", "clips, drop", "segments, drop"), rows)
    found = {"data": Path(given.data).name, "model": given.model, "results": results}
    presenting.write_json(presenting.RESULTS / "robustness.json", found)


def unchanged(waveform: Waveform, _: np.random.Generator) -> Waveform:
    return waveform


def at_8_khz(waveform: Waveform, _: np.random.Generator) -> Waveform:
    low = soxr.resample(waveform, RATE, 8_000)
    return fitted(soxr.resample(low, 8_000, RATE), len(waveform))


def telephone(waveform: Waveform, _: np.random.Generator) -> Waveform:
    """300 to 3,400 Hz."""
    spectrum = np.fft.rfft(waveform)
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    spectrum[(frequencies < 300) | (frequencies > 3_400)] = 0
    return np.fft.irfft(spectrum, len(waveform)).astype(np.float32)


def mp3(waveform: Waveform, _: np.random.Generator) -> Waveform:
    """32 kbit/s, whatever the sound; its delay stays."""
    file = io.BytesIO()
    soundfile.write(
        file,
        waveform,
        RATE,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=MP3_LEVEL,
    )
    kbit = 8 * len(file.getvalue()) / (len(waveform) / RATE) / 1e3
    if len(waveform) > 2 * RATE and not 30 < kbit < 36:
        raise SystemExit(f"the MP3 has {kbit:.1f} kbit/s, and 32 were asked for")
    file.seek(0)
    return fitted(soundfile.read(file, dtype="float32")[0], len(waveform))


def room(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Noise that decays by 60 dB in 0.6 s, as loud as the sound that comes straight."""
    times = np.arange(round(0.6 * RATE)) / RATE
    echoes = rng.normal(size=len(times)) * 10 ** (-3 * times / 0.6)
    response = echoes / np.linalg.norm(echoes)
    response[0] += 1.0
    n = 1 << (len(waveform) + len(response)).bit_length()
    heard = np.fft.irfft(np.fft.rfft(waveform, n) * np.fft.rfft(response, n), n)
    return heard[: len(waveform)].astype(np.float32)


def pink_noise(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """10 dB below the recording."""
    spectrum = np.fft.rfft(rng.normal(size=len(waveform)))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, len(waveform))
    level = waveform.std() / noise.std() * 10 ** (-10 / 20)
    return (waveform + level * noise).astype(np.float32)


def fitted(waveform: Waveform, length: int) -> Waveform:
    """Cut, or padded with zeros, to a length."""
    return np.pad(waveform[:length], (0, max(length - len(waveform), 0))).astype(np.float32)


MP3_LEVEL = 0.85
"""Of libsndfile: from 0, the highest bit rate, to 1; gives 32 kbit/s at 16 kHz mono."""

DEGRADATIONS: dict[str, Callable[[Waveform, np.random.Generator], Waveform]] = {
    "as recorded": unchanged,
    "telephone band, 300 to 3,400 Hz": telephone,
    "sampled at 8 kHz": at_8_khz,
    "MP3, 32 kbit/s": mp3,
    "room, 0.6 s, direct and reverberant alike": room,
    "pink noise at 10 dB": pink_noise,
}

if __name__ == "__main__":
    main()
