"""From files to answers: how fast, where the time goes, and how much memory ten hours take.

python benchmarks/end_to_end.py [--threads N] [--rounds N] [--minutes 3] [--hours 10]

Files of two kinds (16 kHz mono, 44.1 kHz stereo) in four formats are made up and predicted, on
one thread and on all. The stages are timed apart from each other on one thread: the stream of
blocks alone at the file's own rate, the same at 16 kHz (the difference is resampling), the profile,
and the network; the rest is what is left of the whole, and negative where stages overlap. The long
recording is predicted in a process of its own, after a short one. It takes 0.12 GB an hour on the
disk; TMPDIR says where.

Writes benchmarks/results/end_to_end.json and docs/images/end_to_end.png.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib.figure import Figure

import machine
import presenting
import sounds
import stapes
import timing
from stapes import audio
from stapes.colours import ACCENT
from stapes.drawing import WIDE, new_figure, styled
from stapes.inference import BLOCK_SECONDS, Classifier, segment_outputs
from stapes.profile import Profiler
from stapes.segments import Waveform
from timing import Call

FORMATS = {
    "WAV": ("wav", "PCM_16"),
    "FLAC": ("flac", "PCM_16"),
    "Ogg Vorbis": ("ogg", "VORBIS"),
    "MP3": ("mp3", "MPEG_LAYER_III"),
}
KINDS = {"16 kHz mono": (16_000, 1), "44.1 kHz stereo": (44_100, 2)}
HOPS: dict[str, Any] = {"every 256 ms (the default)": None, "every 64 ms (dense)": "dense"}
STAGES = ("reading", "resampling", "profile", "network", "rest")
COLOURS = {
    "reading": "#8fa3b8",
    "resampling": "#2f7ec4",
    "profile": "#cf6f0b",
    "network": ACCENT,
    "rest": "#d5dbe2",
}
MARGIN_MS = 5.0
"""Between a bar and its text."""

N_CLIPS, CLIP_SECONDS = 100, 5.0
MODEL = "cats-dogs"

GROWTH = """
import json, resource, sys, time
import stapes

def most_bytes():  # of this program alone; getrusage also counts what forked it
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == "darwin" else size * 1024
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

short, long, hop = sys.argv[1:]
hop = None if hop == "None" else hop
classifier = stapes.load("cats-dogs")
classifier.predict(short, hop=hop)
before, started = most_bytes(), time.perf_counter()
prediction = classifier.predict(long, hop=hop)
numbers = {"before": before, "after": most_bytes(), "seconds": time.perf_counter() - started}
print(json.dumps(numbers | {"segments": len(prediction.start_seconds)}))
"""
"""A program that tells the most memory it had before and after a long recording."""


def main() -> None:
    parser = machine.arguments(__doc__, rounds=7)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--hours", type=float, default=10.0)
    given = parser.parse_args()
    facts = machine.describe(threads=given.threads)
    found: dict[str, Any] = {"machine": facts, "audio_seconds": given.minutes * 60}
    with machine.only(given.threads), tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), seconds=given.minutes * 60)
        found["files"] = {name: timed(paths, hop, given=given) for name, hop in HOPS.items()}
        found["clips"] = many_clips(Path(folder), rounds=given.rounds)
        for path in list(paths.values())[1:]:
            path.unlink()
        if given.hours > 0:
            found["long"] = long_recording(
                Path(folder), short=paths[next(iter(paths))], given=given
            )
    for name, files in found["files"].items():
        tell(name, files, threads=given.threads)
    more = (
        "stages on one thread, each timed alone · numbers: times real time, on 1 thread and on all"
    )
    figure = chart(found["files"], given.threads, presenting.caption(facts, more=more))
    presenting.write("end_to_end", found, figure)


def write_files(folder: Path, *, seconds: float) -> dict[str, Path]:
    """The same kind of sound in every format and at both rates."""
    paths = {}
    for kind, (rate, channels) in KINDS.items():
        samples = sounds.changing(seconds, rate=rate)
        if channels > 1:
            samples = np.stack([samples, 0.5 * np.roll(samples, 20)], axis=1)
        for name, (ending, subtype) in FORMATS.items():
            path = paths[f"{name}, {kind}"] = folder / f"{rate}.{ending}"
            write_slowly(path, samples, rate=rate, subtype=subtype)
    return paths


def write_slowly(path: Path, samples: Waveform, *, rate: int, subtype: str) -> None:
    """In pieces, since the encoder for Ogg Vorbis takes all its memory from the stack."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, subtype=subtype) as file:
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])


# ---- whole files ----------------------------------------------------------------------------


def timed(paths: Mapping[str, Path], hop: Any, *, given: Any) -> dict[str, Any]:
    """For each file the seconds of a prediction, on one thread and on all, and of its stages."""
    classifier = stapes.load(MODEL)
    whole = {name: lambda p=path: classifier.predict(p, hop=hop) for name, path in paths.items()}
    together = timing.interleaved(whole, rounds=given.rounds)
    with machine.only(1):
        calls = {(name, "whole"): call for name, call in whole.items()}
        for name, path in paths.items():
            stages = stage_calls(classifier, path, hop=hop)
            calls |= {(name, stage): call for stage, call in stages.items()}
        alone = timing.interleaved(calls, rounds=given.rounds)
    duration = given.minutes * 60
    return {
        name: {
            "one_thread": timing.summary(alone[name, "whole"]),
            "all_threads": timing.summary(together[name]),
            "times_real_time_one_thread": duration / np.median(alone[name, "whole"]),
            "times_real_time_a_core_all_threads": duration
            / np.median(together[name])
            / given.threads,
            "stages": stages_of({stage: alone[name, stage] for n, stage in calls if n == name}),
        }
        for name in paths
    }


def stage_calls(classifier: Classifier, path: Path, *, hop: Any) -> dict[str, Call]:
    """What a prediction is made of, each as a call of its own."""
    rate, hop_length = classifier.config.sample_rate, classifier.hop_length(hop)
    blocks = list(audio.open_stream(path, sample_rate=rate, block_seconds=BLOCK_SECONDS))
    file_rate = soundfile.info(path).samplerate

    def read(sample_rate: int) -> None:
        with audio.open_stream(
            path, sample_rate=sample_rate, block_seconds=BLOCK_SECONDS
        ) as stream:
            for _ in stream:
                pass

    def profile() -> None:
        profiler = Profiler(rate)
        for block in blocks:
            profiler.add(block)
        profiler.result(sample_rate_hz=file_rate)

    return {
        "reading": lambda: read(file_rate),
        "reading, resampled": lambda: read(rate),
        "profile": profile,
        "network": lambda: segment_outputs(classifier.network, blocks, hop_length=hop_length),
    }


def stages_of(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Median seconds of each stage, from whole predictions and what was timed alone."""
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    stages = {name: medians[name] for name in ("reading", "profile", "network")}
    stages["resampling"] = medians["reading, resampled"] - medians["reading"]
    stages["rest"] = medians["whole"] - sum(stages.values())
    return {name: stages[name] for name in STAGES}


def many_clips(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Short files, as in an archive: files a second through :func:`stapes.predict`."""
    clips = folder / "clips"
    clips.mkdir()
    for i in range(N_CLIPS):
        samples = np.roll(sounds.changing(CLIP_SECONDS), 100 * i)
        soundfile.write(clips / f"{i}.wav", samples, sounds.RATE, subtype="PCM_16")
    classifier = stapes.load(MODEL)
    call = {"clips": lambda: list(stapes.predict(classifier, [clips]))}
    seconds = timing.summary(timing.interleaved(call, rounds=rounds)["clips"])
    rate = N_CLIPS / seconds["median"]
    presenting.say(f"{N_CLIPS} WAV files of {CLIP_SECONDS:g} s: {rate:,.0f} files a second")
    return {"n": N_CLIPS, "clip_seconds": CLIP_SECONDS, "seconds": seconds, "files_a_second": rate}


# ---- a long recording -----------------------------------------------------------------------


def long_recording(folder: Path, *, short: Path, given: Any) -> dict[str, Any]:
    """Hours of sound: seconds, and by how much the memory's peak grows over that of minutes."""
    path = folder / "long.wav"
    n_blocks = round(given.hours * 3600 / 60)
    with soundfile.SoundFile(path, "w", sounds.RATE, 1, subtype="PCM_16") as file:
        minute = sounds.changing(60)
        for i in range(n_blocks):
            file.write(np.roll(minute, 1000 * i))
    found = {}
    for name, hop in HOPS.items():
        command = [sys.executable, "-c", GROWTH, str(short), str(path), str(hop)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        numbers = json.loads(answer.stdout)
        growth = numbers["after"] - numbers["before"]
        seconds = numbers["seconds"]
        presenting.say(
            f"{given.hours:g} h, {name}: {seconds:.1f} s "
            f"({given.hours * 3600 / seconds:,.0f} times real time), memory grows by "
            f"{growth / 1e6:.1f} MB over the {numbers['before'] / 1e6:.0f} MB that "
            f"{given.minutes:g} min took"
        )
        found[name] = numbers | {"growth_bytes": growth, "hours": given.hours}
    path.unlink()
    return found


# ---- showing --------------------------------------------------------------------------------


def tell(name: str, files: Mapping[str, Any], *, threads: int) -> None:
    """A table: seconds of sound a second of time, and milliseconds a minute of sound by stage."""
    head = ("", "× real time, 1 thread", f"a core, {threads} threads", *STAGES)
    rows = []
    for file, result in files.items():
        shares = result["stages"]
        whole = result["one_thread"]["median"]
        columns = [f"{shares[stage] / whole:.0%}" for stage in STAGES]
        speeds = (
            result["times_real_time_one_thread"],
            result["times_real_time_a_core_all_threads"],
        )
        rows.append((file, *(f"{speed:,.0f}" for speed in speeds), *columns))
    presenting.show(f"Files to answers, {name}; shares of the time on one thread", head, rows)


@styled
def chart(hops: Mapping[str, Any], threads: int, small_print: str) -> Figure:
    """For each hop the stages of each file in a row, in milliseconds a minute of sound."""
    figure = new_figure(width=WIDE, height=0.7 + len(hops) * 2.7)
    all_axes = figure.subplots(len(hops), 1, sharex=True)
    for axes, (name, files) in zip(np.atleast_1d(all_axes), hops.items(), strict=True):
        left = np.zeros(len(files))
        for stage in STAGES:
            widths = np.array([max(per_minute(f)[stage], 0.0) for f in files.values()])
            axes.barh(list(files), widths, left=left, color=COLOURS[stage], height=0.7, label=stage)
            left += widths
        for row, (end, result) in enumerate(zip(left, files.values(), strict=True)):
            one = result["times_real_time_one_thread"]
            together = threads * result["times_real_time_a_core_all_threads"]
            text = f"{one:,.0f} ×" + (f"  ·  {together:,.0f} × on {threads}" if threads > 1 else "")
            axes.text(end + MARGIN_MS, row, text, va="center", size=8, bbox=presenting.GROUND)
        axes.invert_yaxis()
        axes.set_title(f"Files to answers, {name}")
        presenting.finish(axes, grid="x")
    ends = [
        sum(max(v, 0) for v in per_minute(f).values()) for h in hops.values() for f in h.values()
    ]
    axes.set_xlim(0, 1.35 * max(ends))
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= max(ends)])
    axes.set_xlabel("milliseconds a minute of sound, one thread", loc="left", size=8)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(STAGES), handlelength=1)
    presenting.small(figure, small_print)
    return figure


def per_minute(result: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of each stage for a minute of sound."""
    duration = result["times_real_time_one_thread"] * result["one_thread"]["median"]
    return {name: 60e3 * value / duration for name, value in result["stages"].items()}


if __name__ == "__main__":
    main()
