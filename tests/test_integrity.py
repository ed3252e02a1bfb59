"""What containers promise against what is there: every cut found, nothing intact accused."""

import random
import struct
import zlib
from dataclasses import replace

import pytest

from forged_audio import KINDS, RATE, chunk, encoded, fmt, pages, pcm, wav, without_xing
from stapes import integrity
from stapes.containers import flac, ogg
from stapes.containers.source import Source, View
from stapes.errors import AudioError

UNCOMPRESSED = ("wav 16 bit", "wav 24 bit", "wav float", "rf64", "w64", "aiff", "flac")


def inspected(content):
    return integrity.inspect(Source(content))


def flags(content):
    return {finding.flag for finding in inspected(content).findings}


def notes(content):
    return " ".join(finding.note for finding in inspected(content).findings)


def crc_by_bits(message, *, width, polynomial):
    """A CRC as the books define it: most significant bit first, 0 at the start and the end."""
    value = 0
    for byte in message:
        value ^= byte << width - 8
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> width - 1 else 0)
            value &= (1 << width) - 1
    return value


@pytest.mark.parametrize("length", [0, 1, 2, 3, 255, 256, 1000, 4097])
def test_the_fast_checksums_equal_the_slow_definition(length):
    message = random.Random(length).randbytes(length)
    assert ogg.crc32(message) == crc_by_bits(message, width=32, polynomial=0x04C11DB7)
    # FLAC's is over the message and its CRC at once, so that the remainder must vanish.
    crc = crc_by_bits(message, width=16, polynomial=0x8005)
    assert flac.crc16(message + crc.to_bytes(2)) == 0
    assert flac.crc16(message + (crc ^ 1).to_bytes(2)) != 0


@pytest.mark.parametrize("kind", UNCOMPRESSED)
@pytest.mark.parametrize("n_samples", [1, 15, 16_001])
def test_samples_are_counted_without_the_decoder(kind, n_samples):
    layout = inspected(encoded(kind, seconds=n_samples / RATE))
    assert (layout.n_frames, layout.findings) == (n_samples, ())


@pytest.mark.parametrize("kind", ["vorbis", "opus", "mp3"])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 12.3])
def test_packed_formats_are_counted_within_their_tolerance(kind, seconds):
    layout = inspected(encoded(kind, seconds=seconds))
    assert 0 <= layout.n_frames - seconds * RATE <= max(layout.tolerance, 1)
    assert layout.findings == ()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "adpcm" not in kind])
def test_a_cut_of_any_few_bytes_is_found(kind):
    content = encoded(kind, seconds=0.3)
    for n_bytes in range(1, 40):
        assert flags(content[:-n_bytes]) == {"damaged"}, n_bytes


def test_a_cut_says_what_was_promised_and_what_is_there():
    content = encoded("wav 16 bit", seconds=4.0)
    assert "header promises 4.00 s, 2.13 s are there" in notes(content[: 44 + 2 * 34_080])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000])
def test_streamed_sizes_mean_to_the_end(size):
    layout = inspected(wav(pcm(), data_size=size))
    assert layout.n_frames == RATE
    assert [finding.flag for finding in layout.findings] == ["length-unverifiable"]


@pytest.mark.parametrize("lie", [-44, -8, 2, 44])
def test_chunks_behind_the_audio_are_no_audio_even_if_the_size_is_wrong(lie):
    tail = chunk(b"LIST", b"INFOISFT" + bytes(range(60)))
    layout = inspected(wav(pcm(), data_size=32_000 + lie, tail=tail))
    assert layout.n_frames == RATE
    assert [finding.flag for finding in layout.findings] == ["header-repaired"]


def test_junk_behind_the_riff_is_ignored():
    junk = random.Random(0).randbytes(500)
    layout = inspected(wav(pcm()) + junk)
    assert (layout.n_frames, layout.findings) == (RATE, ())


def test_a_codec_that_cannot_be_read_is_named():
    with pytest.raises(AudioError, match=r"0x0161.*Windows Media"):
        inspected(wav(bytes(650), header=fmt(codec=0x161)))


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"\0\0\0\x20ftypM4A ", "MP4"),
        (b"\x1aE\xdf\xa3", "Matroska"),
        (b"0&\xb2u\x8ef\xcf\x11", "Windows Media"),
        (b"PK\x03\x04", "ZIP"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("\ufeff Zurück!".encode(), "looks like text"),
    ],
)
def test_other_files_are_named(head, told):
    body = b"" if told in ("git lfs pull", "looks like text") else bytes([0, 200, 7] * 100)
    with pytest.raises(AudioError, match=told):
        inspected(head + body)


def test_flac_whose_rate_changes_midway_is_refused():
    first, second = encoded("flac"), encoded("flac", rate=48_000)
    with pytest.raises(AudioError, match=r"16000 Hz.*1\.00 s says 48000 Hz"):
        inspected(first + second[second.index(b"\xff\xf8") :])


def test_flac_whose_channels_change_midway_is_refused():
    first, second = encoded("flac"), encoded("flac", channels=2)
    with pytest.raises(AudioError, match=r"1 channels, a frame at 1\.00 s says 16000 Hz and 2"):
        inspected(first + second[second.index(b"\xff\xf8") :])


def test_a_lost_flac_frame_is_told_and_the_rest_stays_in_place():
    content = encoded("flac", seconds=2.0)
    starts = [content.index(b"\xff\xf8" + content[86 + 2 : 86 + 4] + bytes([i])) for i in range(4)]
    cut = content[: starts[2]] + content[starts[3] :]
    length = 4096
    layout = inspected(cut)
    assert layout.n_frames == 2 * RATE
    assert f"{2 * length / RATE:.2f} s to {3 * length / RATE:.2f} s" in layout.findings[0].note


def test_flac_behind_an_id3_tag_is_flac():
    assert inspected(b"ID3\x04\0\0\0\0\0\x05hello" + encoded("flac")).kind == "FLAC"


def test_a_page_missing_or_changed_is_told_with_its_time():
    content = encoded("vorbis", seconds=20.0)
    parts = pages(content)
    assert len(parts) > 5
    seconds = struct.unpack("<q", parts[2][6:14])[0] / RATE
    lost = b"".join([*parts[:3], *parts[4:]])
    changed = b"".join([*parts[:3], parts[3][:-1] + bytes([parts[3][-1] ^ 1]), *parts[4:]])
    for spoiled in (lost, changed):
        assert notes(spoiled) == f"pages at {seconds:.2f} s are broken or missing"


def test_of_chained_ogg_streams_the_first_is_read_and_the_others_told():
    content = encoded("vorbis")
    other = [patched_serial(page) for page in pages(content)]
    layout = inspected(content + b"".join(other))
    assert layout.pieces == (range(len(content)),)
    assert "second stream" in layout.findings[0].note


def patched_serial(page):
    blank = page[:14] + b"abcd" + page[18:22] + bytes(4) + page[26:]
    checksum = crc_by_bits(blank, width=32, polynomial=0x04C11DB7)
    return blank[:22] + checksum.to_bytes(4, "little") + blank[26:]


def test_mp3_frames_are_counted_against_the_header():
    content = encoded("mp3", seconds=3.0)
    assert flags(content) == set()
    assert flags(without_xing(content)) == {"length-unverifiable"}
    assert "header promises" in notes(content[: len(content) // 2])
    assert "bytes at" in notes(content[:5000] + content[5300:])


def test_an_id3_tag_at_the_end_is_no_damage():
    assert flags(encoded("mp3", seconds=3.0) + b"TAG" + bytes(125)) == set()


def test_a_view_is_a_file_of_its_pieces():
    content = random.Random(0).randbytes(1000)
    view = View(Source(content), [b"head", range(10, 20), b"", range(500, 900)])
    expected = b"head" + content[10:20] + content[500:900]
    assert view.read() == expected
    for offset in (0, 3, 4, 13, 14, 413, 414, 9999):
        assert view.seek(offset) == offset
        assert view.read(7) == expected[offset : offset + 7]
    assert view.seek(-4, 2) == len(expected) - 4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("mp3", "wav adpcm")])
def test_what_the_decoder_sees_is_intact_again(kind):
    """The repaired view of a cut file passes the same inspection, but for its missing end."""
    content = encoded(kind, seconds=2.0)
    layout = inspected(content[: len(content) * 2 // 3])
    again = inspected(View(Source(content), layout.pieces).read())
    told = {finding.note for finding in again.findings}
    if kind in ("vorbis", "opus"):  # no page is made up
        assert len(told) == 1
        assert "its end is missing" in told.pop()
    else:
        assert told <= {"streamed: the header has no length"}
        assert again.n_frames == layout.n_frames


def test_checking_allocates_nothing_from_claims():
    huge = wav(pcm(), header=fmt(), data_size=0xFFFFFFF0)
    assert sum(map(len, inspected(huge).pieces)) < 2 * len(huge)
    assert replace(inspected(huge), findings=()).n_frames == RATE


def test_zlib_agrees_about_what_a_crc_is():
    # The reversed form of the same polynomial: ties the reference above to an independent one.
    message = b"stapes"
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in message)
    value = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    assert int(f"{value:032b}"[::-1], 2) == crc_by_bits(message, width=32, polynomial=0x04C11DB7)
