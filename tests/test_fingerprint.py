from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes import fingerprint as module
from stapes.fingerprint import FRAME_BITS, HOP_LENGTH, RATE_HZ, find_candidates, fingerprint
from stapes.synthesis import clip


def scene(seed, seconds=4.0, label="bark"):
    rng = np.random.default_rng(seed)
    return clip(label, rng, seconds=seconds, sample_rate=RATE_HZ)


def voted(fingerprints):
    """Votes by pair and offset in frames, counted with dictionaries, one match at a time."""
    places = defaultdict(list)
    for i, prints in enumerate(fingerprints):
        for entry in prints.tolist():
            places[entry >> 32].append((i, entry & int(FRAME_BITS)))
    votes = Counter()
    for found in places.values():
        for a, frame in found:
            for b, other in found:
                if a < b:
                    for near in (-1, 0, 1):
                        votes[a, b, frame - other + near] += 1
    return votes


def test_the_largest_within_a_reach_is_that_of_every_window():
    values = np.random.default_rng(0).normal(size=(23, 9)).astype(np.float32)
    for reach in (1, 2, 4, 7):
        got = module._largest(values, reach, axis=0)
        want = [values[max(i - reach, 0) : i + reach + 1].max(axis=0) for i in range(len(values))]
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("frequency", [440.0, 447.3, 1003.9])
def test_a_peak_is_placed_between_bins_and_frames(frequency):
    time = np.arange(RATE_HZ) / RATE_HZ
    burst = np.exp(-(((time - 0.5037) / 0.03) ** 2)) * np.sin(2 * np.pi * frequency * time)
    times, frequencies = module._peaks(burst.astype(np.float32))
    middle = (times * HOP_LENGTH + module.FRAME_LENGTH / 2) / RATE_HZ
    loudest = np.abs(middle - 0.5037).argmin()
    assert middle[loudest] == pytest.approx(0.5037, abs=0.002)  # an eighth of a frame
    assert frequencies[loudest] * RATE_HZ / module.FRAME_LENGTH == pytest.approx(frequency, abs=2)


def test_silence_and_what_is_too_short_have_no_hashes():
    for waveform in (np.zeros(0), np.zeros(100), np.zeros(80_000), np.ones(5)):
        assert len(fingerprint(waveform.astype(np.float32))) == 0


def test_hashes_are_in_order_of_time_and_hundreds_a_second():
    prints = fingerprint(scene(0))
    frames = (prints & FRAME_BITS).astype(int)
    assert np.all(np.diff(frames) >= 0)
    assert frames[-1] < 4.0 * RATE_HZ / HOP_LENGTH
    assert 200 < len(prints) / 4.0 < 600


@settings(max_examples=15)
@given(gain_db=st.floats(-20, 6), inverted=st.booleans())
def test_level_and_polarity_change_few_hashes(gain_db, inverted):
    waveform = scene(1)
    changed = waveform * np.float32(10 ** (gain_db / 20) * (-1 if inverted else 1))
    before, after = set(fingerprint(waveform).tolist()), set(fingerprint(changed).tolist())
    assert len(before & after) > 0.9 * len(before)


def test_blocks_do_not_show(monkeypatch):
    waveform = scene(2, seconds=6.0)
    whole = fingerprint(waveform)
    monkeypatch.setattr(module, "BLOCK_FRAMES", 50)
    monkeypatch.setattr(module, "BLOCK_PEAKS", 64)
    np.testing.assert_array_equal(np.sort(fingerprint(waveform)), np.sort(whole))


@settings(max_examples=10)
@given(start=st.integers(8_000, 24_000))
def test_two_cuts_are_a_candidate_at_their_offset(start):
    waveform = scene(3, seconds=5.0)
    prints = [fingerprint(waveform[:32_000]), fingerprint(waveform[start:])]
    best = max(find_candidates(prints), key=lambda candidate: candidate.votes)
    assert (best.first, best.second) == (0, 1)
    assert best.offset_seconds == pytest.approx(start / RATE_HZ, abs=2 * HOP_LENGTH / RATE_HZ)


def test_candidates_have_the_votes_that_counting_one_by_one_gives():
    waveforms = [scene(seed, seconds=2.0) for seed in range(4)]
    prints = [fingerprint(w) for w in (*waveforms, waveforms[1][5_000:], waveforms[2][:9_000])]
    votes = voted(prints)
    candidates = find_candidates(prints)
    assert {(1, 4), (2, 5)} <= {(c.first, c.second) for c in candidates}
    for candidate in candidates:
        offset = round(candidate.offset_seconds * RATE_HZ / HOP_LENGTH)
        assert candidate.votes == votes[candidate.first, candidate.second, offset]
    strong = {key[:2] for key, n in votes.items() if n >= module.FEWEST_VOTES}
    assert {(c.first, c.second) for c in candidates} == strong


def test_very_many_copies_stay_connected_in_bounded_memory(monkeypatch):
    prints = [fingerprint(scene(5, seconds=1.0))] * 40
    monkeypatch.setattr(module, "MOST_MATCHES", 3 * 40 * len(prints[0]))
    pairs = {(c.first, c.second) for c in find_candidates(prints)}
    assert len(pairs) < 40 * 39 / 2
    assert {(i, i + 1) for i in range(39)} <= pairs


def test_nothing_gives_no_candidates():
    assert find_candidates([]) == []
    assert find_candidates([np.empty(0, np.uint64)] * 3) == []
