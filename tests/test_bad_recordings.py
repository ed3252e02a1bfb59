"""Every kind of bad recording and its outcome: refused in one line, or the good part read."""

import os
import socket
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from forged_audio import (
    KINDS,
    RATE,
    chunk,
    encoded,
    flac_samples,
    fmt,
    pages,
    pcm,
    sound,
    wav,
    without_xing,
)
from stapes import audio
from stapes.errors import AudioError


def floats(value: float) -> bytes:
    samples = sound()[:, 0].astype("<f4")
    samples[8000] = value
    return wav(samples.tobytes(), header=fmt(codec=3, bits=32))


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 4
    return bytes(changed)


def cut(content: bytes, share: float = 0.6) -> bytes:
    return content[: int(len(content) * share)]


def mp3() -> bytes:
    return encoded("mp3", seconds=3.0)


EXTENSIBLE = struct.pack("<HHI", 22, 16, 4) + bytes.fromhex("0100000000001000800000aa00389b71")
MP3_IN_WAV = struct.pack("<HHIHHH", 12, 1, 2, 417, 1, 1393)
ID3_OF_16K = b"ID3\x04\0\0" + bytes([0, 1, 0, 0]) + bytes(16384)
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
BOMB = fmt(channels=8)

REFUSED = [
    (1, "empty file", lambda: b"", "empty"),
    (2, "header only", lambda: wav(b""), "no audio"),
    (3, "all NUL", lambda: bytes(5000), "not audio"),
    (4, "noise without a header", lambda: np.random.default_rng(1).bytes(5000), "not audio"),
    (19, "a codec nobody knows", lambda: wav(bytes(650), header=fmt(codec=0x1234)), "0x1234"),
    (20, "NaN", lambda: floats(np.nan), "NaN.*0.500 s"),
    (20, "infinity", lambda: floats(-np.inf), "infinite"),
    (20, "1e29", lambda: floats(1e29), "absurdly large"),
    (21, "rate 0", lambda: wav(pcm(), header=fmt(rate=0)), "rate|Hz|decoded"),
    (21, "rate 1 Hz", lambda: wav(pcm(), header=fmt(rate=1)), "1 Hz"),
    (21, "rate 768 kHz", lambda: wav(pcm(), header=fmt(rate=768_000)), "768,000 Hz"),
    (21, "rate 4 GHz", lambda: wav(pcm(), header=fmt(rate=4 * 10**9)), "rate|Hz|decoded"),
    (22, "no channel", lambda: wav(pcm(), header=fmt(channels=0)), "0 channels"),
    (22, "65,535 channels", lambda: wav(pcm(), header=fmt(channels=65_535)), "65535|65,535"),
    (28, "a web page", lambda: HTML, "looks like HTML"),
    (28, "text", lambda: b"Not found: the file has gone\n" * 20, "looks like text"),
]

# What is read: the seconds that must come back, within the tolerance, and the flags.
READ = [
    (5, "WAV shorter than its header", lambda: cut(encoded("wav 16 bit")), 0.6, "damaged"),
    (5, "data size doubled", lambda: wav(pcm(), data_size=64_000), 1.0, "damaged"),
    (6, "data size 0", lambda: wav(pcm(), data_size=0), 1.0, "header-repaired"),
    (6, "data size 44", lambda: wav(pcm(), data_size=44), 1.0, "header-repaired"),
    (7, "data size 44 too large", lambda: wav(pcm(), data_size=32_044), 1.0, "header-repaired"),
    (8, "streamed, no size", lambda: wav(pcm(), data_size=2**32 - 1), 1.0, "length-unverifiable"),
    (9, "NUL tail", lambda: wav(pcm() + bytes(16_000)), 1.0, "damaged"),
    (10, "RF64", lambda: encoded("rf64"), 1.0, ""),
    (10, "W64", lambda: encoded("w64"), 1.0, ""),
    (11, "FLAC length doubled", lambda: flac_samples(encoded("flac"), 32_000), 1.0, "damaged"),
    (12, "FLAC length 0", lambda: flac_samples(encoded("flac"), 0), 1.0, ""),
    (12, "FLAC length 2^36 - 1", lambda: flac_samples(encoded("flac"), 2**36 - 1), 1.0, "damaged"),
    (13, "FLAC frame broken", lambda: flipped(encoded("flac"), 14_000), 1.0, "damaged"),
    (13, "FLAC MD5 wrong", lambda: flipped(encoded("flac"), 26), 1.0, "damaged"),
    (15, "Ogg without its end", lambda: b"".join(pages(encoded("vorbis"))[:-1]), 0.9, "damaged"),
    (16, "Xing MP3 cut", lambda: cut(mp3()), 1.8, "damaged"),
    (16, "MP3 without Xing", lambda: without_xing(mp3()), 3.1, "length-unverifiable"),
    (17, "MP3 behind junk", lambda: bytes(range(1, 200)) * 20 + mp3(), 3.0, ""),
    (17, "MP3 behind a large tag", lambda: ID3_OF_16K + mp3(), 3.0, ""),
    (
        19,
        "MP3 in WAV",
        lambda: wav(mp3(), header=fmt(codec=0x55, bits=0, more=MP3_IN_WAV)),
        3.0,
        "",
    ),
    (19, "ADPCM", lambda: encoded("wav adpcm"), 1.0, ""),
    (19, "mu-law", lambda: encoded("wav mu-law"), 1.0, ""),
    (19, "extensible", lambda: wav(pcm(), header=fmt(codec=0xFFFE, more=EXTENSIBLE)), 1.0, ""),
    (19, "24 bit", lambda: encoded("wav 24 bit"), 1.0, ""),
    (19, "8 bit", lambda: wav(bytes([128, 255, 0, 7]) * 4000, header=fmt(bits=8)), 1.0, ""),
    (19, "64 bit", lambda: wav(sound().tobytes(), header=fmt(codec=3, bits=64)), 1.0, ""),
    (22, "64 channels", lambda: wav(pcm(channels=64), header=fmt(channels=64)), 1.0, ""),
    (24, "silence", lambda: wav(bytes(32_000)), 1.0, ""),
    (24, "a constant", lambda: wav(struct.pack("<h", 8000) * 16_000), 1.0, ""),
    (27, "chunks behind", lambda: wav(pcm(), tail=chunk(b"LIST", b"abc")), 1.0, ""),
    (27, "an odd byte behind", lambda: wav(pcm() + b"\1"), 1.0, ""),
]


def named(rows):
    return [f"{row[0]} {row[1]}" for row in rows]


@pytest.mark.parametrize("row", REFUSED, ids=named(REFUSED))
def test_what_holds_no_audio_is_refused_in_one_line(row, tmp_path: Path):
    _, _, make, told = row
    path = tmp_path / "recording.wav"
    path.write_bytes(make())
    with pytest.raises(AudioError, match=told) as caught:
        audio.read(path)
    assert "\n" not in str(caught.value)
    assert "recording.wav" in str(caught.value)


@pytest.mark.parametrize("row", READ, ids=named(READ))
def test_the_readable_part_comes_back_and_damage_is_told(row):
    _, name, make, seconds, flag = row
    recording = audio.read(make())
    assert recording.duration_seconds == pytest.approx(seconds, abs=0.12), recording
    assert np.isfinite(recording.waveform).all()
    if flag:
        assert flag in recording.flags
        assert recording.notes
    else:
        assert not set(recording.flags) & {"damaged", "header-repaired"}, recording.notes
    if seconds == 1.0 and "a " not in name and name not in ("silence", "8 bit", "64 channels"):
        assert np.sqrt(np.mean(np.square(recording.waveform))) > 0.15  # the sound, not zeros


@pytest.mark.parametrize(("kind", "rate"), [("vorbis", RATE), ("opus", 48_000)])
def test_a_cut_ogg_is_read_up_to_its_last_whole_page(kind, rate):
    content = cut(encoded(kind, seconds=9.0), 0.8)
    last_whole = pages(content)[-2]
    seconds = int.from_bytes(last_whole[6:14], "little") / rate  # the granule position
    recording = audio.read(content)
    assert "damaged" in recording.flags
    assert recording.duration_seconds == pytest.approx(seconds, abs=0.02)
    assert f"{recording.duration_seconds:.2f} s" in recording.notes[0]


def test_the_place_of_damage_is_told_in_seconds():
    # The byte in the middle of a file of even bit rate lies about half-way.
    content = encoded("flac", seconds=10.0)
    note = audio.read(flipped(content, len(content) // 2)).notes[0]
    first, last = (float(word) for word in note.replace(" s", "").split()[:3:2])
    assert first <= 5.1
    assert last >= 4.9
    assert last - first < 0.6


def test_no_junk_is_read_where_sizes_are_off_by_the_header():
    np.testing.assert_array_equal(
        audio.read(wav(pcm(), data_size=32_044)).waveform, audio.read(wav(pcm())).waveform
    )


def test_non_finite_samples_can_be_zeroed_on_request():
    recording = audio.read(floats(np.nan), non_finite="zero")
    assert recording.waveform[8000] == 0
    assert "damaged" in recording.flags
    assert "1 sample" in recording.notes[0]


def test_flac_of_12_bits_is_read_or_refused_by_name():
    # libFLAC streams may have 12 bits; the header's field says 16 here and is forged to 12.
    content = bytearray(encoded("flac"))
    content[20] = content[20] & 0xFE
    content[21] = content[21] & 0x0F | 0xB0
    try:
        recording = audio.read(bytes(content))
    except AudioError as error:
        assert "FLAC" in str(error) or "bits" in str(error)
    else:
        assert "damaged" in recording.flags  # the frames say 16 bits


def test_the_content_decides_and_a_wrong_extension_is_told(tmp_path: Path):
    path = tmp_path / "recording.mp3"
    path.write_bytes(encoded("flac"))
    recording = audio.read(path)
    assert recording.flags == ("wrong-extension",)
    assert recording.duration_seconds == 1.0


def test_a_bomb_stays_in_bounds():
    # Eight channels of silence, an hour of them, are 14 kB a second of nothing.
    silence = wav(bytes(8 * 2 * RATE * 60), header=BOMB)
    tracemalloc.start()
    n_samples = 0
    with audio.open_stream(silence, block_seconds=1.0) as stream:
        for block in stream:
            n_samples += len(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_samples == RATE * 60
    assert peak < 20e6


def test_nothing_is_allocated_from_a_forged_length():
    forged = flac_samples(encoded("flac"), 2**36 - 1)
    tracemalloc.start()
    audio.read(forged)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, "socket"], ids=["fifo", "folder", "socket"]
)
def test_what_is_no_file_never_blocks(make, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets must be short
    path = Path("x.wav")
    if make == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        make(path)
    with pytest.raises(AudioError):
        audio.read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_intact_files_raise_no_alarm(kind):
    for seconds, rate, channels in [(0.05, 16_000, 1), (1.3, 44_100, 2), (2.0, 48_000, 1)]:
        if kind == "opus" and rate == 44_100:
            continue  # not a rate of Opus
        recording = audio.read(encoded(kind, seconds=seconds, rate=rate, channels=channels))
        assert recording.flags == (), (kind, rate, recording.notes)
        assert recording.duration_seconds == pytest.approx(seconds, abs=0.07)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wav adpcm"])
def test_every_truncation_is_found(kind):
    content = encoded(kind)
    for length in np.linspace(0, len(content) - 1, 60).astype(int):
        try:
            recording = audio.read(content[:length])
        except AudioError:
            continue
        assert "damaged" in recording.flags, f"{length} of {len(content)} bytes"
        assert recording.duration_seconds <= 1.01


def test_broken_mp3_frames_are_not_told_by_the_decoder(capfd):
    content = bytearray(mp3())
    for place in range(2000, len(content), 97):
        content[place] ^= 0x55
    try:
        audio.read(bytes(content))
    except AudioError as error:
        assert "\n" not in str(error)
    assert capfd.readouterr().err == ""


def test_real_recordings_raise_no_alarm(data_folder: Path):
    for pattern in ("cats_dogs/*/*_1*.wav", "esc10/*/1-*.ogg"):
        paths = sorted(data_folder.glob(pattern))
        assert paths
        for path in paths:
            recording = audio.read(path)
            assert not set(recording.flags) - {"length-unverifiable"}, (path, recording.notes)
