"""Reading: the right samples at the right rate, in blocks, in ranges, within bounds."""

import io
import os
import signal
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from forged_audio import RATE, chunk, encoded, fmt, pcm, sound, wav
from stapes import audio, decoding
from stapes.containers import source as source_module
from stapes.containers.source import View
from stapes.errors import AudioError

TOLERANCE = 1e-5
"""Largest difference, in units of full scale, that float32 arithmetic explains."""


def decoded(content):
    """What soundfile makes of an intact file: the mean of its channels, and its rate."""
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def test_a_file_at_the_wanted_rate_comes_back_sample_by_sample():
    waveform, _ = decoded(wav(pcm()))
    recording = audio.read(wav(pcm()))
    np.testing.assert_array_equal(recording.waveform, waveform)
    assert recording.waveform.dtype == np.float32
    assert (recording.sample_rate, recording.duration_seconds) == (RATE, 1.0)
    assert recording.flags == recording.notes == ()


def test_channels_are_averaged():
    stereo = encoded("wav float", channels=2)
    waveform, _ = decoded(stereo)
    np.testing.assert_allclose(audio.read(stereo).waveform, waveform, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000, 384_000])
def test_resampling_in_blocks_equals_resampling_at_once(rate):
    content = encoded("wav float", rate=rate)
    waveform, _ = decoded(content)
    expected = soxr.resample(waveform, rate, RATE, quality="HQ")
    with audio.open_stream(content, block_seconds=0.013) as stream:
        blocks = list(stream)
    assert {len(block) for block in blocks[:-1]} == {208}
    assert 0 < len(blocks[-1]) <= 208
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=TOLERANCE)
    assert stream.duration_seconds == pytest.approx(1.0, abs=2 / RATE)


def test_the_rate_of_the_file_is_kept_beside_that_of_the_waveform():
    content = encoded("wav float", rate=8_000)
    recording = audio.read(content, sample_rate=RATE)
    assert (recording.sample_rate, recording.file_sample_rate) == (RATE, 8_000)
    with audio.open_stream(content, sample_rate=RATE) as stream:
        assert stream.file_sample_rate == 8_000


def test_a_path_a_string_and_bytes_give_the_same(tmp_path: Path):
    path = tmp_path / "bärk\n\x1b 🐕.wav"
    path.write_bytes(wav(pcm()))
    first, second, third = (audio.read(s) for s in (path, str(path), path.read_bytes()))
    assert first.waveform.tobytes() == second.waveform.tobytes() == third.waveform.tobytes()


def test_messages_are_one_line_whatever_the_name(tmp_path: Path):
    path = tmp_path / "a\nb\x1b.wav"
    path.write_bytes(b"")
    with pytest.raises(AudioError, match=r"a\\nb\\x1b.wav: an empty file") as caught:
        audio.read(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "kind", ["wav 16 bit", "wav float", "flac", "w64", "aiff", "mp3", "vorbis"]
)
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_a_range_equals_the_same_part_of_the_whole(kind, rate):
    content = encoded(kind, seconds=3.0, rate=rate)
    whole = audio.read(content).waveform
    for start, end in [(0.0, 0.5), (0.1, 0.1001), (1.7, 2.9), (2.0, None), (1.23456, 2.34567)]:
        part = audio.read(content, start_seconds=start, end_seconds=end).waveform
        expected = whole[round(start * RATE) : None if end is None else round(end * RATE)]
        assert len(part) == len(expected)
        np.testing.assert_allclose(part, expected, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["wav 16 bit", "flac", "vorbis"])
@pytest.mark.parametrize(("start", "end"), [(0.5, 1.5), (1.0, None), (3.0, 4.0), (1e9, None)])
def test_a_range_behind_the_end_is_refused_with_the_length(kind, start, end):
    with pytest.raises(AudioError, match=r"1\.00 s long.*correct the times"):
        audio.read(encoded(kind), start_seconds=start, end_seconds=end)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1e-5), (0.5, 0.5000001)])
def test_a_range_of_less_than_a_sample_is_a_mistake_in_its_times(start, end):
    with pytest.raises(AudioError, match="less than a sample: correct the times"):
        audio.read(wav(pcm()), start_seconds=start, end_seconds=end)


def test_a_range_may_end_a_rounding_error_behind_the_end():
    assert audio.read(wav(pcm()), start_seconds=0.5, end_seconds=1.009).duration_seconds == 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"sample_rate": 0},
        {"start_seconds": -1.0},
        {"start_seconds": float("nan")},
        {"start_seconds": float("inf")},
        {"start_seconds": 1.0, "end_seconds": 1.0},
        {"end_seconds": float("nan")},
        {"non_finite": "keep"},
    ],
)
def test_numbers_out_of_range_are_the_programmers_mistake(options):
    with pytest.raises(ValueError, match=r"_seconds|sample_rate|non_finite"):
        audio.read(wav(pcm()), **options)


def test_zeroing_says_how_many_and_when():
    samples = sound()[:, 0].astype("<f4")
    samples[[4000, 4001, 12_000]] = np.nan, np.inf, -1e30
    content = wav(samples.tobytes(), header=fmt(codec=3, bits=32))
    recording = audio.read(content, non_finite="zero")
    samples[[4000, 4001, 12_000]] = 0
    np.testing.assert_array_equal(recording.waveform, samples)
    assert recording.flags == ("damaged",)
    assert "3 samples between 0.250 s and 0.750 s" in recording.notes[0]
    assert "3 samples" in audio.read(content, end_seconds=0.5, non_finite="zero").notes[0]


def test_a_recording_too_long_for_memory_is_refused_but_streams(monkeypatch):
    monkeypatch.setattr(audio, "MOST_SAMPLES", 10_000)
    with pytest.raises(AudioError, match=r"too long for memory.*open_stream"):
        audio.read(wav(pcm()))
    with audio.open_stream(wav(pcm())) as stream:
        assert sum(map(len, stream)) == RATE
    assert audio.read(wav(pcm()), end_seconds=0.5).duration_seconds == 0.5


def test_a_bomb_is_stopped_by_the_byte_budget(monkeypatch):
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros((200_000, 8), np.int16), 8_000, format="FLAC")
    content = silence.getvalue()
    assert len(content) < 200_000 * 8 * 4 / 1_000
    assert audio.read(content).duration_seconds == 25.0
    monkeypatch.setattr(decoding, "DECODED_BYTES", 1 << 20)
    with pytest.raises(AudioError, match="bomb"):
        audio.read(content)


def test_a_long_stream_stays_in_flat_memory(tmp_path: Path):
    path = tmp_path / "long.wav"
    header = wav(b"", header=fmt(channels=2, rate=48_000), data_size=48_000 * 4 * 600)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 48_000 * 4 * 600)  # ten minutes of holes
    tracemalloc.start()
    with audio.open_stream(path, block_seconds=1.0) as stream:
        n_samples = sum(map(len, stream))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_samples == RATE * 600
    assert peak < 8e6


def large_file(path, header, *, n_bytes, end):
    """A file of holes that occupies nothing on the disk, but for its two ends."""
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + n_bytes - len(end))
        file.seek(0, os.SEEK_END)
        file.write(end)
    return path


@pytest.mark.parametrize("form", ["RF64", "overflowed"])
def test_wav_beyond_4_gb_is_read_to_its_end(form, tmp_path: Path):
    n_bytes = (5 << 30) + 1000
    sizes = struct.pack("<QQQI", n_bytes, n_bytes, n_bytes // 2, 0)
    header = b"RF64" + b"\xff" * 4 + b"WAVE" + chunk(b"ds64", sizes) + fmt() + b"data" + b"\xff" * 4
    if form == "overflowed":
        header = wav(b"", data_size=n_bytes % 2**32)
    path = large_file(tmp_path / "long.wav", header, n_bytes=n_bytes, end=pcm())
    seconds = n_bytes / 2 / RATE
    recording = audio.read(path, start_seconds=seconds - 1)
    np.testing.assert_array_equal(recording.waveform, audio.read(wav(pcm())).waveform)
    assert recording.flags == (("header-repaired",) if form == "overflowed" else ())


def test_silence_and_fades_at_the_end_are_kept():
    fade = sound(seconds=2.0)[:, 0] * np.linspace(1, 0, 2 * RATE) ** 2
    for waveform in (
        np.concatenate([fade, np.zeros(3 * RATE)]),
        np.concatenate([sound()[:, 0], np.zeros(RATE // 5)]),
        np.zeros(3 * RATE),
    ):
        content = wav((waveform * 32767).astype("<i2").tobytes())
        recording = audio.read(content)
        assert recording.flags == ()
        assert recording.duration_seconds == pytest.approx(len(waveform) / RATE)


@pytest.mark.parametrize(("codec", "bits"), [(1, 8), (1, 24), (3, 32), (6, 8), (7, 8)])
def test_nuls_at_the_end_are_left_out_of_every_kind_of_wav(codec, bits):
    intact = np.random.default_rng(0).integers(40, 200, 2 * RATE * bits // 8, dtype=np.uint8)
    intact[3::4] = 0x3F  # floats of about one
    content = wav(intact.tobytes() + bytes(len(intact)), header=fmt(codec=codec, bits=bits))
    recording = audio.read(content)
    assert recording.duration_seconds == 2.0
    assert recording.flags == ("damaged",)
    assert "2.00 s of NULs" in recording.notes[0]


@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("nuls", [True, False])
def test_of_a_range_that_a_recording_breaks_off_in_what_is_there_is_read(rate, nuls):
    content = wav(pcm(seconds=4.0, rate=rate), header=fmt(rate=rate))
    half = len(content) // 2
    content = content[:half] + bytes(half * nuls)
    recording = audio.read(content, start_seconds=1.5, end_seconds=3.0)
    assert recording.duration_seconds == pytest.approx(0.5, abs=0.01)
    assert recording.flags == ("damaged",)
    if nuls:
        assert audio.read(content, start_seconds=0.5, end_seconds=1.5).flags == ()
    else:
        with pytest.raises(AudioError, match=r"breaks off at 2\.00 s: record or copy it again"):
            audio.read(content, start_seconds=2.5, end_seconds=3.0)


class FailingFile(io.BytesIO):
    """A disk that stops answering half-way."""

    def read(self, size=-1):
        if self.tell() + max(size, 0) > 16_000:  # also in the middle of one read
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_a_disk_that_fails_is_told(monkeypatch, capfd):
    monkeypatch.setattr(source_module.io, "BytesIO", FailingFile)
    with pytest.raises(AudioError, match=r"cannot be read at byte .* check the disk"):
        audio.read(wav(pcm()))
    assert capfd.readouterr().err == ""


@pytest.fixture
def heeding_ctrl_c():
    """A shell that starts the tests in its background has told them to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize("call", [1, 2, 3, 5, 12])
def test_ctrl_c_while_a_file_is_read_is_ctrl_c(monkeypatch, capfd, call):
    calls, readinto = [], View.readinto

    def struck(view, buffer):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return readinto(view, buffer)

    monkeypatch.setattr(View, "readinto", struck)
    content = encoded("flac", seconds=30.0)
    with pytest.raises(KeyboardInterrupt):
        audio.read(content)
    assert len(calls) >= call
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert audio.read(content).duration_seconds == pytest.approx(30.0)


def test_a_file_that_shrinks_while_it_is_read_is_damaged(tmp_path: Path):
    path = tmp_path / "x.wav"
    path.write_bytes(wav(np.tile(np.frombuffer(pcm(), "<i2"), 60).tobytes()))
    with audio.open_stream(path, block_seconds=1.0) as stream:
        blocks = iter(stream)
        next(blocks)
        os.truncate(path, 1_000_000)
        list(blocks)
    assert "damaged" in stream.flags
    assert stream.duration_seconds < 60


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "missing.wav", "", "a\0b"])
def test_what_cannot_be_opened_is_refused(path):
    with pytest.raises(AudioError):
        audio.read(path)


def test_refused_files_are_closed(tmp_path: Path):
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc to count open files")
    path = tmp_path / "x.wav"
    before = len(list(folder.iterdir()))
    for content in (b"", b"RIFF", wav(pcm(), header=fmt(rate=1)), wav(pcm())[:3000]):
        path.write_bytes(content)
        for _ in range(5):
            try:
                audio.read(path)
            except AudioError:
                continue
    assert len(list(folder.iterdir())) == before
