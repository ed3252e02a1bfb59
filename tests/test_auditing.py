import csv
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from stapes import audio, sharing
from stapes.auditing import audit, describe, find_sources, leaks, write_sources
from stapes.clips import Clip
from stapes.dataset import load_dataset
from stapes.sharing import Finding, cache_folder, find_shared
from stapes.synthesis import clip
from stapes.tables import read_labels

RATE = 16_000


def scene(seed, label="bark", seconds=3.0):
    return clip(label, np.random.default_rng(seed), seconds=seconds)


def write(path, waveform, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    if rate != RATE:
        waveform = soxr.resample(waveform, RATE, rate)
    # Integers, because libsndfile rounds floats to WAV in another way than to FLAC.
    soundfile.write(path, np.round(waveform * 32_767).astype(np.int16), rate)
    return path


def clips_of(n, **fields):
    return [Clip(Path(f"{i}.wav"), f"{i}.wav", "a", f"{i}.wav", **fields) for i in range(n)]


def by_files(results):
    return {tuple(finding["files"]): finding for finding in results["findings"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders with one of everything, and recordings that only sound alike."""
    root = tmp_path_factory.mktemp("data")
    scenes = [scene(i) for i in range(5)]
    write(root / "dog/0.wav", scenes[0])
    (root / "dog/0 again.wav").write_bytes((root / "dog/0.wav").read_bytes())
    write(root / "dog/1.wav", scenes[1])
    write(root / "dog/1.flac", scenes[1])
    write(root / "dog/2.wav", scenes[2])
    write(root / "dog/2.ogg", -0.25 * scenes[2], 44_100)
    write(root / "dog/3.wav", scenes[3][: round(2.2 * RATE)])
    write(root / "cat/3, later.mp3", scenes[3][round(1.5 * RATE) :], 22_050)
    write(root / "dog/4.wav", scenes[4])
    for i in range(4):
        write(root / f"cat/{i}.wav", scene(100 + i, "meow"))
    write(root / "cat/silent.wav", np.zeros(RATE))
    write(root / "cat/silent too.wav", np.zeros(RATE))
    whole = write(root / "cat/damaged.wav", scene(200, "meow")).read_bytes()
    (root / "cat/damaged.wav").write_bytes(whole[: len(whole) // 2])
    (root / "cat/empty.wav").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def results(folder):
    return audit(folder)


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        (("dog/0 again.wav", "dog/0.wav"), "same bytes", "hold the same file"),
        (("dog/1.flac", "dog/1.wav"), "same samples", "hold the same samples"),
        (("dog/2.ogg", "dog/2.wav"), "same audio", " dB, inverted)"),
        (("cat/3, later.mp3", "dog/3.wav"), "overlap", "from 1.5 s on"),
        (("cat/silent.wav",), "silent", "is silent"),
        (("cat/damaged.wav",), "damaged", "cat/damaged.wav: "),
    ],
)
def test_every_kind_is_found_and_told(results, files, kind, words):
    finding = by_files(results)[files]
    assert finding["kind"] == kind
    assert words in finding["words"]
    assert finding["labels"] == [name.split("/")[0] for name in files]


def test_nothing_else_is_found(results):
    pairs = [files for files in by_files(results) if len(files) > 1]
    assert len(pairs) == 4
    assert results["counts"] == {
        "same bytes": 1,
        "same samples": 1,
        "same audio": 1,
        "overlap": 1,
        "two labels": 1,
        "silent": 2,
        "damaged": 1,
    }


def test_changes_of_a_copy_are_told(results):
    finding = by_files(results)["dog/2.ogg", "dog/2.wav"]
    assert finding["gain_db"] == pytest.approx(12.0, abs=0.5)
    assert finding["inverted"]
    assert finding["offset_seconds"] == pytest.approx(0.0, abs=0.001)
    assert finding["similarity"] > 0.9


def test_offset_and_length_are_those_of_the_cut(results):
    finding = by_files(results)["cat/3, later.mp3", "dog/3.wav"]
    # Time in the first less time in the second; MP3 encoders put some 10 to 60 ms in front.
    assert finding["offset_seconds"] == pytest.approx(-1.5, abs=0.07)
    assert finding["overlap_seconds"] == pytest.approx(0.7, abs=0.2)
    assert finding["concerns"] == ["two labels"]
    assert finding["words"].endswith("; their labels are cat, dog")


def test_sources_are_joined_over_what_is_shared(results):
    sources = results["sources"]
    assert sources["dog/0.wav"] == sources["dog/0 again.wav"]
    assert sources["cat/3, later.mp3"] == sources["dog/3.wav"]
    assert results["n_files"] == 16
    assert results["n_sources"] == len(set(sources.values())) == 12
    assert [skip["name"] for skip in results["skipped"]] == ["cat/empty.wav"]


def test_the_table_of_sources_is_read_back(folder, results, tmp_path):
    write_sources(tmp_path / "found.csv", results)
    dataset = load_dataset(tmp_path / "found.csv")
    read = {c.path.resolve(): c.source for c in dataset.clips}
    want = {(folder / name).resolve(): s for name, s in results["sources"].items()}
    # Of the two silent files, which are joined as copies of bytes, the audit says nothing.
    assert {p: s for p, s in read.items() if "silent" not in p.name} == {
        p: s for p, s in want.items() if "silent" not in p.name
    }


def test_names_in_the_table_are_no_formulas_and_folds_stay_if_they_hold(tmp_path):
    rows = [
        {"file_name": name, "label": "=x", "source": source, "fold": fold}
        | {"start_seconds": None, "end_seconds": None}
        for name, source, fold in (("=a.wav", "s", 1), ("b.wav", "s", 1), ("c.wav", "t", 2))
    ]
    found = {"folder": str(tmp_path), "clips": rows}
    write_sources(tmp_path / "t.csv", found)
    read = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert [row["file_name"] for row in read] == ["./=a.wav", "b.wav", "c.wav"]
    assert {row["label"] for row in read} == {"'=x"}
    labels, _ = read_labels(tmp_path / "t.csv")
    assert {row.label for row in labels} == {"=x"}
    assert [row["fold"] for row in read] == ["1", "1", "2"]
    rows[1]["fold"] = 2
    write_sources(tmp_path / "t.csv", found)
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "file_name,label,source"


def test_a_leak_between_given_parts_is_told(tmp_path):
    waveform = scene(20)
    write(tmp_path / "train/dog/a.wav", waveform)
    write(tmp_path / "test/dog/b.wav", waveform[RATE:])
    write(tmp_path / "train/cat/c.wav", scene(21, "meow"))
    write(tmp_path / "test/cat/d.wav", scene(22, "meow"))
    results = audit(tmp_path)
    (finding,) = results["findings"]
    assert finding["concerns"] == ["train and test"]
    assert "they are in train and in test" in finding["words"]
    assert results["counts"] == {"overlap": 1, "train and test": 1}


def test_leaks_are_findings_over_a_border():
    clips = clips_of(4)
    findings = [Finding("overlap", (0, 1)), Finding("overlap", (1, 2)), Finding("silent", (3,))]
    assert leaks(clips, findings, [1, 1, 2, 2]) == [findings[1]]
    assert leaks(clips, findings, [1, None, 2, 2]) == []
    with pytest.raises(ValueError, match="3 groups for 4 clips"):
        leaks(clips, findings, [1, 2, 3])


def test_sources_follow_chains_and_given_sources():
    clips = clips_of(4)
    findings = [Finding("overlap", (0, 1)), Finding("overlap", (1, 2)), Finding("silent", (3,))]
    assert find_sources(clips, findings) == ["0.wav", "0.wav", "0.wav", "3.wav"]
    assert find_sources(clips, []) == [clip.source for clip in clips]


def test_in_memory_the_same_is_found_at_any_rate():
    waveform = scene(30)
    waveforms = [waveform[: 2 * RATE], waveform[RATE:], scene(31), np.zeros(RATE, np.float32)]
    for rate in (8_000, RATE, 44_100):
        resampled = [soxr.resample(w, RATE, rate) for w in waveforms]
        (finding,) = find_shared(clips_of(4), resampled, sample_rate=rate)
        assert (finding.kind, finding.clips) == ("overlap", (0, 1))
        assert finding.alignment.offset_seconds == pytest.approx(1.0, abs=0.001)
    assert find_shared([], [], sample_rate=RATE) == []


def test_events_of_one_file_are_not_compared():
    waveform = scene(32)
    events = [
        Clip(Path("long.wav"), "long.wav", "a", "long.wav", start_seconds=s, end_seconds=s + 2)
        for s in (0.0, 1.0)
    ]
    cuts = [waveform[: 2 * RATE], waveform[RATE:]]
    assert find_shared(events, cuts, sample_rate=RATE) == []
    copy = Clip(Path("copy.wav"), "copy.wav", "a", "copy.wav")
    found = find_shared([*events, copy], [*cuts, waveform], sample_rate=RATE)
    assert [finding.clips for finding in found] == [(0, 2), (1, 2)]
    assert "copy.wav from 1.0 s on" in describe([*events, copy], found[1])["words"]
    assert "long.wav (1 s to 3 s)" in describe([*events, copy], found[1])["files"]


def test_events_of_one_file_have_a_source_each_in_the_results(tmp_path):
    write(tmp_path / "long.wav", np.concatenate([scene(34), scene(35)]))
    rows = "file_name,label,source,start_seconds,end_seconds\n"
    rows += "long.wav,a,first,0,3\nlong.wav,b,second,3,6\n"
    (tmp_path / "events.csv").write_text(rows)
    sources = audit(tmp_path / "events.csv")["sources"]
    assert sources == {"long.wav (0 s to 3 s)": "first", "long.wav (3 s to 6 s)": "second"}


def test_results_are_remembered_by_content(tmp_path, monkeypatch):
    waveform = scene(33)
    waveforms = [waveform[: 2 * RATE], waveform[RATE:]]
    arguments = {"sample_rate": RATE, "cache": tmp_path / "cache"}
    found = find_shared(clips_of(2), waveforms, **arguments)
    assert len(found) == 1

    def fail(_waveform):
        raise AssertionError("heard again")

    monkeypatch.setattr(sharing, "fingerprint", fail)
    assert find_shared(clips_of(2), waveforms, **arguments) == found
    with pytest.raises(AssertionError, match="heard again"):
        find_shared(clips_of(2), [waveforms[0], 0.5 * waveforms[1]], **arguments)


def test_a_cache_that_cannot_be_used_is_none(tmp_path):
    waveform = scene(34, seconds=1.5)
    arguments = {"sample_rate": RATE, "cache": tmp_path / "cache"}
    want = find_shared(clips_of(2), [waveform, waveform], sample_rate=RATE)
    assert [finding.kind for finding in want] == ["same samples"]
    (tmp_path / "cache").write_text("a file, not a folder")
    assert find_shared(clips_of(2), [waveform, waveform], **arguments) == want
    (tmp_path / "cache").unlink()
    find_shared(clips_of(2), [waveform, waveform], **arguments)
    (entry,) = (tmp_path / "cache").iterdir()
    for content in ("", "[{", '[{"kind": 1}]', "7"):
        entry.write_text(content)
        assert find_shared(clips_of(2), [waveform, waveform], **arguments) == want


def test_the_cache_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "N_CACHED", 2)
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(size=100).astype(np.float32)
        find_shared(clips_of(1), [noise], sample_rate=RATE, cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == min(seed + 1, 2)


def test_the_cache_lies_where_the_platform_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "stapes"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative is to be ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "stapes"


def test_progress_is_told(folder):
    told = []
    audit(folder, progress=lambda *args: told.append(args))
    for task in ("listening", "comparing"):
        steps = [(done, total) for name, done, total, _ in told if name == task]
        assert [done for done, _ in steps] == list(range(1, steps[-1][1] + 1))


def test_real_recordings_agree_with_plain_correlation(data_folder, tmp_path):
    root = data_folder / "cats_dogs"
    names = [f"cat/cat_{i}.wav" for i in (1, 2, 3, 10, 94, 95, 96, 104, 110)]
    names += [f"dog/dog_{i}.wav" for i in (1, 2, 3, 4)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(root / name)
    found = {frozenset(files) for files in by_files(audit(tmp_path)) if len(files) > 1}
    waveforms = {name: audio.read(root / name, sample_rate=4_000).waveform for name in names}
    want = {
        frozenset((a, b))
        for a, b in itertools.combinations(names, 2)
        if largest_correlation(waveforms[a], waveforms[b], least=1_600) > 0.9
    }
    assert found == want
    assert len(want) == 8


def largest_correlation(first, second, *, least):
    """Of two waveforms over every offset where they overlap by ``least`` samples."""
    n = 1 << (len(first) + len(second)).bit_length()
    spectra = [np.fft.rfft(w, n) for w in (first, second)]
    lags = np.arange(least - len(second), len(first) - least)
    products = np.fft.irfft(spectra[0] * np.conj(spectra[1]), n)[lags]
    start, stop = np.maximum(lags, 0), np.minimum(len(first), lags + len(second))
    sums = [np.concatenate([[0.0], np.cumsum(w.astype(float) ** 2)]) for w in (first, second)]
    energies = (sums[0][stop] - sums[0][start]) * (sums[1][stop - lags] - sums[1][start - lags])
    return np.abs(products / np.sqrt(np.maximum(energies, 1e-12))).max()
