"""Degraded recordings: networks on clips that they have not learnt from, and the shipped model.

None of these ways is used in training, but that some of its noises are like the pink one and like
rumble.

python benchmarks/robustness.py DATA [--seeds 3] [--threads 1] [--model cats-dogs]

The networks are those that a cross-validation would train; their trainings stay in build/crossval,
so a run that was ended goes on where it was. The model that comes with the package learnt from
these recordings, so only its drops say something.

Writes benchmarks/results/robustness.json.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import presenting
import stapes
import tables
from copies import RATE, encode
from shipped import place
from stapes import audio, evaluation, experiment, runs
from stapes.config import ModelConfig, TrainingConfig, preset_training
from stapes.dataset import DecodedDataset
from stapes.engine import FoldedNetwork
from stapes.measurement import Measured, measure, summarise
from stapes.progress import silent
from stapes.segments import Waveform
from stapes.splits import folds
from stapes.threads import using_threads

SEED = 0
KEYS = ("accuracy", "balanced_accuracy", "interval", "n", "recall")

Judges = list[tuple[FoldedNetwork, list[int]]]
"""Networks, and the clips that each judges."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="cats-dogs")
    given = parser.parse_args()
    shipped = stapes.load(given.model).network
    decoded, _ = experiment.read(given.data, silent, config=shipped.config)
    with using_threads(given.threads):
        judges = unheard(decoded, shipped.config, seeds=given.seeds)
    rng = np.random.default_rng(SEED)
    results, clean = {}, None
    for name, degrade in DEGRADATIONS.items():
        waveforms = [degrade(waveform, rng) for waveform in decoded.waveforms]
        found = judged(judges, decoded, waveforms)
        clean = clean or found
        sources = [clip.source for clip in found.clips]
        results[name] = {
            "unheard": told(summarise(found, n_repeats=given.seeds))
            | {"change": evaluation.compare(found.right, clean.right, sources)},
            "shipped": told(summarise(measure(shipped, decoded.clips, waveforms))),
        }
    numbers = {"data": Path(given.data).name, "model": given.model, "seeds": given.seeds}
    presenting.write_json(presenting.RESULTS / "robustness.json", numbers | {"results": results})
    presenting.say(tables.robustness_table())


def unheard(decoded: DecodedDataset, config: ModelConfig, *, seeds: int) -> Judges:
    """A network for each seed and fold, with the clips that it has not learnt from."""
    run, _ = place("robustness", "classic", n_classes=len(config.classes))
    recipe = TrainingConfig(**preset_training("classic", n_classes=len(config.classes)))
    judges = []
    for seed in range(seeds):
        for fold, (learnt, held) in enumerate(folds(decoded.clips, seed=0)):
            path = runs.training_state(run, f"cross-validating-{seed}-{fold}")
            path.parent.mkdir(parents=True, exist_ok=True)
            state = experiment.learn(
                decoded,
                learnt,
                config=config,
                settings=replace(recipe, seed=seed),
                state_path=path,
            )
            presenting.say(f"seed {seed}, fold {fold}: trained in {state.seconds:.0f} s")
            judges.append((FoldedNetwork.fold(config, state.best), list(held)))
    return judges


def judged(judges: Judges, decoded: DecodedDataset, waveforms: list[Waveform]) -> Measured:
    return Measured.join(
        [
            measure(network, [decoded.clips[i] for i in held], [waveforms[i] for i in held])
            for network, held in judges
        ]
    ).known


def told(metrics: dict) -> dict:
    return {part: {key: metrics[part][key] for key in KEYS} for part in ("clips", "segments")}


def unchanged(waveform: Waveform, _: np.random.Generator) -> Waveform:
    return waveform


def read_back(content: bytes) -> Waveform:
    """As stapes hears a file."""
    return audio.read(content, sample_rate=RATE).waveform


def at_8_khz(waveform: Waveform, _: np.random.Generator) -> Waveform:
    return read_back(encode(waveform, 8_000)[1])


def telephone(waveform: Waveform, _: np.random.Generator) -> Waveform:
    """300 to 3,400 Hz."""
    spectrum = np.fft.rfft(waveform)
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    spectrum[(frequencies < 300) | (frequencies > 3_400)] = 0
    return np.fft.irfft(spectrum, len(waveform)).astype(np.float32)


def mp3(waveform: Waveform, _: np.random.Generator) -> Waveform:
    """32 kbit/s, whatever the sound."""
    options = {"bitrate_mode": "CONSTANT", "compression_level": MP3_LEVEL}
    _, content = encode(waveform, RATE, ".mp3", **options)
    kbit = 8 * len(content) / (len(waveform) / RATE) / 1e3
    if len(waveform) > 2 * RATE and not 30 < kbit < 36:
        raise SystemExit(f"the MP3 has {kbit:.1f} kbit/s, and 32 were asked for")
    return read_back(content)


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
    slope = 1 / np.sqrt(np.maximum(np.arange(len(waveform) // 2 + 1), 1))
    return with_noise(waveform, slope, rng, level_db=-10)


def rumble(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """As wind and handling give it: below 100 Hz, as loud as the recording."""
    below = np.fft.rfftfreq(len(waveform), 1 / RATE) < 100
    return with_noise(waveform, below, rng, level_db=0)


def with_noise(
    waveform: Waveform, amplitudes: np.ndarray, rng: np.random.Generator, *, level_db: float
) -> Waveform:
    """With noise of this spectrum [T / 2 + 1], at a level against the recording's."""
    spectrum = np.fft.rfft(rng.normal(size=len(waveform))) * amplitudes
    noise = np.fft.irfft(spectrum, len(waveform))
    level = waveform.std() / noise.std() * 10 ** (level_db / 20)
    return (waveform + level * noise).astype(np.float32)


MP3_LEVEL = 0.85
"""Of libsndfile: from 0, the highest bit rate, to 1; gives 32 kbit/s at 16 kHz mono."""

DEGRADATIONS: dict[str, Callable[[Waveform, np.random.Generator], Waveform]] = {
    "as recorded": unchanged,
    "telephone band, 300 to 3,400 Hz": telephone,
    "sampled at 8 kHz": at_8_khz,
    "MP3, 32 kbit/s": mp3,
    "room, 0.6 s, direct and reverberant alike": room,
    "pink noise at 10 dB": pink_noise,
    "rumble below 100 Hz at 0 dB": rumble,
}

if __name__ == "__main__":
    main()
