"""2,000 spoiled files of every format: refused, or a bounded and finite waveform, told as damaged.

Every mutation is made from its own number, so a failure can be run again alone.
"""

import os
import sys
import tempfile
import time
from contextlib import contextmanager

import numpy as np
import pytest

from forged_audio import KINDS, encoded, without_xing
from stapes import audio
from stapes.containers.layout import FLAGS
from stapes.errors import AudioError

N_MUTATIONS = 2_000
N_GROUPS = 20
SLOWEST_SECONDS = 5.0
LONGEST_SECONDS = 600.0


@contextmanager
def silent_stderr():
    """What is written to file descriptor 2, by whatever code: nothing, it must turn out."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        assert file.read() == b""


def bases():
    files = {kind: encoded(kind, seconds=0.5) for kind in KINDS}
    for kind in ("wav 16 bit", "flac", "vorbis", "mp3", "aiff"):
        files[f"{kind} stereo"] = encoded(kind, seconds=0.5, rate=44_100, channels=2)
    files["mp3 uncounted"] = without_xing(files["mp3"])
    return list(files.items())


def truncated(content, rng):
    return content[: rng.integers(0, len(content))]


def cut_a_little(content, rng):
    return content[: len(content) - rng.integers(1, 50)]


def header_spoiled(content, rng):
    spoiled = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        spoiled[rng.integers(0, min(120, len(content)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    return bytes(spoiled)


def header_random(content, rng):
    spoiled = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        spoiled[rng.integers(0, min(120, len(content)))] = rng.integers(0, 256)
    return bytes(spoiled)


def bits_flipped(content, rng):
    spoiled = bytearray(content)
    for _ in range(rng.integers(1, 30)):
        spoiled[rng.integers(0, len(content))] ^= 1 << int(rng.integers(0, 8))
    return bytes(spoiled)


def block_deleted(content, rng):
    start = rng.integers(0, len(content))
    return content[:start] + content[start + rng.integers(1, len(content) // 2) :]


def block_inserted(content, rng):
    start, size = rng.integers(0, len(content)), rng.integers(1, 3000)
    return content[:start] + rng.bytes(size) + content[start:]


def block_repeated(content, rng):
    start = rng.integers(0, len(content))
    return content[: start + rng.integers(1, 3000)] + content[start:]


def block_zeroed(content, rng):
    start = rng.integers(0, len(content))
    size = min(rng.integers(1, 3000), len(content) - start)
    return content[:start] + bytes(size) + content[start + size :]


CUTS = (truncated, cut_a_little)
MUTATIONS = (*CUTS, header_spoiled, header_random, bits_flipped, block_deleted, block_inserted,
             block_repeated, block_zeroed)  # fmt: skip


@pytest.fixture(scope="module")
def files():
    return bases()


def spoiled(files, number):
    """The mutation of one number: its name, how it was made, and its bytes."""
    name, content = files[number % len(files)]
    mutation = MUTATIONS[number // len(files) % len(MUTATIONS)]
    return name, mutation, mutation(content, np.random.default_rng(number))


def check(name, mutation, content):
    try:
        recording = audio.read(content, non_finite="refuse")
    except AudioError as error:
        assert "\n" not in str(error)
        return "refused"
    assert np.isfinite(recording.waveform).all()
    assert 0 < recording.duration_seconds <= LONGEST_SECONDS
    assert set(recording.flags) <= set(FLAGS)
    if mutation in CUTS:
        told = {"damaged"} | ({"length-unverifiable"} if "uncounted" in name else set())
        assert told & set(recording.flags), "a truncation passed for a whole recording"
    return "read"


@pytest.mark.parametrize("group", range(N_GROUPS))
def test_no_mutation_crashes_hangs_or_passes_truncated(files, group):
    for number in range(group, N_MUTATIONS, N_GROUPS):
        name, mutation, content = spoiled(files, number)
        begin = time.monotonic()
        try:
            with silent_stderr():
                check(name, mutation, content)
        except Exception as error:
            raise AssertionError(f"mutation {number}: {name} {mutation.__name__}") from error
        assert time.monotonic() - begin < SLOWEST_SECONDS


def test_the_unspoiled_files_pass(files):
    for name, content in files:
        recording = audio.read(content)
        assert recording.flags == (("length-unverifiable",) if "uncounted" in name else ()), name


def test_every_mutation_is_refused_and_read_sometimes(files):
    outcomes = {(m, check(n, m, c)) for n, m, c in (spoiled(files, i) for i in range(504))}
    assert {m for m, outcome in outcomes if outcome == "refused"} == set(MUTATIONS)
    assert {m for m, outcome in outcomes if outcome == "read"} == set(MUTATIONS)
