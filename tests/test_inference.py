"""Recordings in blocks, votes by hand, and one answer whatever form the recording has."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from stapes import checkpoint
from stapes.acceptance import Acceptance
from stapes.calibration import Calibration
from stapes.checkpoint import Model
from stapes.config import ModelConfig
from stapes.engine import FoldedNetwork
from stapes.errors import AudioError, ModelFileError, StapesError, UsageError
from stapes.inference import SHIPPED, Classifier, SegmentOutputs, load, segment_outputs
from stapes.profile import describe, profile
from tones import RATE, tone

LENGTH = 1000
CONFIG = ModelConfig(("cat", "dog"), n_layers=3, n_filters=4, segment_length=LENGTH)


def random_model(config: ModelConfig = CONFIG) -> Model:
    rng = np.random.default_rng(0)
    shapes = checkpoint.tensor_shapes(config)
    tensors = {k: rng.uniform(0.1, 1, shape).astype(np.float32) for k, shape in shapes.items()}
    tensors |= {k: v - 0.5 for k, v in tensors.items() if k.endswith("weight")}
    return Model(config, tensors)


NETWORK = random_model().fold()


@pytest.fixture(scope="module")
def classifier(run_folder) -> Classifier:
    """The model of tones as it was trained, without calibration and thresholds."""
    trained = load(run_folder).model
    return Classifier(Model(trained.config, trained.tensors))


def noise(n_samples: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)


def one_by_one(network: FoldedNetwork, waveform: np.ndarray, hop_length: int):
    """Every segment cut out and levelled alone, as the definition says."""
    length = network.config.segment_length
    padded = np.append(waveform, np.zeros(max(0, length - len(waveform)), np.float32))
    starts, logits, peaks = [], [], []
    while not starts or starts[-1] + length < len(padded):  # the last ends with the recording
        starts.append(min(starts[-1] + hop_length, len(padded) - length) if starts else 0)
        segment = padded[starts[-1] : starts[-1] + length].astype(np.float64)
        peaks.append(np.abs(segment).max())
        level = 10 ** (12 * round(20 * math.log10(max(segment.std(), 1e-5)) / 12) / 20)
        offset = level / 8 * round(segment.mean() / (level / 8))
        scaled = (segment - offset) / level
        logits.append(network.logits(scaled[None].astype(np.float32))[0])
    return starts, logits, peaks


def check(outputs: SegmentOutputs, network: FoldedNetwork, waveform, hop_length: int) -> None:
    starts, logits, peaks = one_by_one(network, waveform, hop_length)
    assert outputs.starts.tolist() == starts
    assert outputs.n_samples == len(waveform)
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-4)  # logits of order 1
    np.testing.assert_allclose(outputs.peaks, peaks, rtol=1e-6)


@given(
    st.integers(1, 4 * LENGTH),
    st.lists(st.integers(0, 4 * LENGTH), max_size=8),
    st.sampled_from([LENGTH // 4, LENGTH // 2, LENGTH, 64, 333, LENGTH - 1]),
)
def test_blocks_may_end_anywhere(n_samples, borders, hop_length):
    waveform = noise(n_samples, seed=n_samples)
    blocks = np.split(waveform, sorted(min(border, n_samples) for border in borders))
    check(segment_outputs(NETWORK, blocks, hop_length=hop_length), NETWORK, waveform, hop_length)


@pytest.mark.parametrize("block", [1, 7, 999, 1000, 1001, 2500])
def test_blocks_of_any_length_give_the_same(block):
    waveform = noise(3400)
    blocks = [waveform[i : i + block] for i in range(0, len(waveform), block)]
    check(segment_outputs(NETWORK, iter(blocks), hop_length=250), NETWORK, waveform, 250)


def test_the_memory_of_a_block_may_be_used_again():
    waveform, memory = noise(3600), np.empty(600, np.float32)

    def blocks():
        for i in range(0, len(waveform), len(memory)):
            memory[:] = waveform[i : i + len(memory)]
            yield memory

    check(segment_outputs(NETWORK, blocks(), hop_length=250), NETWORK, waveform, 250)


@pytest.mark.parametrize("hop", [None, "dense", 0.1, 1.0])
def test_the_classic_network_at_every_hop(classifier, hop):
    waveform = tone("low", seed=1, seconds=2.9)
    hop_length = classifier.hop_length(hop)
    outputs = segment_outputs(
        classifier.network, np.array_split(waveform, 7), hop_length=hop_length
    )
    check(outputs, classifier.network, waveform, hop_length)


def peak_bytes(*, n_blocks: int, block: int, hop_length: int) -> int:
    tracemalloc.start()
    try:
        segment_outputs(
            NETWORK, (noise(block, seed=i) for i in range(n_blocks)), hop_length=hop_length
        )
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_recording_nor_with_a_shorter_hop():
    few = peak_bytes(n_blocks=5, block=16_000, hop_length=500)
    many = peak_bytes(n_blocks=100, block=16_000, hop_length=500)
    answers = 20 * 100 * 16_000 // 500  # bytes of a start, two logits and a peak a segment
    answers += 100 * 1_000  # and of the arrays of each block; its samples would be 64,000
    assert many - answers < 1.2 * few
    all_at_once = 4 * LENGTH * 16_000  # bytes of a segment at every sample
    assert peak_bytes(n_blocks=1, block=16_000, hop_length=4) < all_at_once / 20


@pytest.mark.parametrize("hop_length", [0, -1, LENGTH + 1])
def test_a_hop_that_skips_samples_is_a_programmers_mistake(hop_length):
    with pytest.raises(ValueError, match="hop_length"):
        segment_outputs(NETWORK, [noise(5000)], hop_length=hop_length)


def outputs_of(shares, *, peaks=None) -> SegmentOutputs:
    """Segments of two classes, from the probability of the second."""
    p = np.float32(shares)
    peaks = np.ones_like(p) if peaks is None else np.float32(peaks)
    none = np.full(len(p), -np.inf, np.float32)
    return SegmentOutputs(np.arange(len(p)), np.log(p / (1 - p))[:, None], none, peaks, 16_000)


VOTES = [
    # probabilities of the second class, peaks, vote, probability of the second class
    ([0.2, 0.4, 0.9], None, "mean", 0.5),
    ([0.2, 0.4, 0.9], None, "majority", 1 / 3),
    ([0.2, 0.9], None, "majority", 0.5),
    ([0.1, 0.2, 0.9], [1, 0.5, 0.39], "mean", 0.15),
    ([0.1, 0.2, 0.9], [0.1, 0.05, 0.041], "mean", 0.4),
    ([0.1, 0.9, 0.9], [1, 0.3, 0.3], "majority", 0),
    ([0.3, 0.5], [0, 0], "mean", 0.4),
]


@pytest.mark.parametrize(("shares", "peaks", "method", "wanted"), VOTES)
def test_votes_by_hand(shares, peaks, method, wanted):
    found = outputs_of(shares, peaks=peaks).vote(method, gate=0.4)
    np.testing.assert_allclose(found, [1 - wanted, wanted], atol=1e-5)


@pytest.mark.parametrize(
    ("shares", "winner"), [([0.4, 0.9], 1), ([0.1, 0.6], 0), ([0.49, 0.52], 1), ([0.48, 0.51], 0)]
)
def test_a_tied_majority_goes_to_the_higher_mean(shares, winner):
    found = outputs_of(shares).vote("majority", gate=0.4)
    assert found.argmax() == winner
    assert found.sum() == pytest.approx(1)


def test_an_unknown_vote_is_a_programmers_mistake(classifier):
    with pytest.raises(ValueError, match="'median'"):
        classifier.predict(noise(20_000), vote="median")


@pytest.mark.parametrize("vote", ["mean", "majority"])
@pytest.mark.parametrize("level", [0.0, 0.5, 1e-30])
def test_silence_and_constants_have_finite_answers(classifier, level, vote):
    prediction = classifier.predict(np.full(40_000, level, np.float32), vote=vote)
    assert np.isfinite(prediction.segment_probabilities).all()
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert not prediction.accepted  # of no class, whatever the thresholds


def test_segments_that_hold_a_constant_have_no_vote(classifier):
    wave = tone("low", seed=3, seconds=1.0)
    constant = np.full(2 * RATE, np.abs(wave).max(), np.float32)
    followed = classifier.predict(np.append(wave, constant), hop=1.0)
    assert followed.probabilities == pytest.approx(classifier.predict(wave).probabilities)


@pytest.mark.parametrize("label", ["low", "high"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
def test_tones_it_has_not_heard_at_any_rate(classifier, label, rate):
    wave = tone(label, seed=77, rate=rate, seconds=2)
    prediction = classifier.predict(wave, sample_rate=rate)
    assert prediction.label == label
    assert prediction.duration_seconds == pytest.approx(2, abs=1e-3)


def test_what_is_quiet_beside_the_rest_of_its_recording_has_no_say(classifier):
    loud, quiet = tone("low", seed=5, seconds=1.5), 0.05 * tone("high", seed=6, seconds=4)
    prediction = classifier.predict(np.append(loud, quiet), hop=0.5)
    heard = prediction.start_seconds < 1.5
    assert heard.tolist() == [True] * 3 + [False] * 7
    wanted = prediction.segment_probabilities[heard].mean(axis=0)
    assert list(prediction.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-6)
    assert prediction.segment_probabilities[3:].argmax(axis=1).tolist() == [0] * 7
    assert prediction.label == "low"


def test_a_prediction_says_everything(classifier):
    prediction = classifier.predict(tone("high", seed=5, seconds=2.0))
    shares = prediction.segment_probabilities
    assert prediction.path == ""
    assert prediction.flags == prediction.notes == ()
    assert list(prediction.probabilities) == ["high", "low"]
    assert prediction.probability == max(prediction.probabilities.values())
    assert prediction.start_seconds.tolist() == [0, 0.256, 0.512, 0.768, 1.0]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(list(prediction.probabilities.values()), shares.mean(axis=0))
    plain = prediction.as_dict(segments=True)
    assert list(plain) == [
        *("path", "label", "probability", "probabilities", "duration_seconds", "flags"),
        *("notes", "segments"),
    ]
    assert "segments" not in prediction.as_dict()
    second = plain["segments"][1]
    assert second["start_seconds"] == 0.256
    assert second["probabilities"] == pytest.approx({"high": shares[1, 0], "low": shares[1, 1]})


def test_a_calibrated_model_gives_the_same_answers_less_or_more_surely(classifier):
    plain = classifier.model
    calibrated = Classifier(replace(plain, calibration=Calibration(2.0, 0.5)))
    wave = tone("high", seed=5, seconds=2.0)
    before, after = classifier.predict(wave), calibrated.predict(wave)
    odds = [p / (1 - p) for p in (before.probabilities["low"], after.probabilities["low"])]
    assert np.log(odds[1]) == pytest.approx(np.log(odds[0]) / 2, rel=1e-4)
    shares = [a.segment_probabilities[:, 1].astype(float) for a in (before, after)]
    logits = [np.log(share / (1 - share)) for share in shares]
    np.testing.assert_allclose(logits[1], 2 * logits[0], rtol=1e-2)
    majority = calibrated.predict(wave, vote="majority")
    assert majority.probabilities == classifier.predict(wave, vote="majority").probabilities


def test_what_scores_below_the_threshold_of_its_class_is_flagged(classifier):
    wave = tone("high", seed=5, seconds=2.0)
    outputs = segment_outputs(classifier.network, [wave], hop_length=RATE // 4)
    others = np.exp(outputs.logits[:, 0]) + np.exp(outputs.none)  # beside exp(0) of "high"
    score = float(np.mean(1 / (1 + others)))
    for threshold, accepted in [(score - 0.01, True), (score + 0.01, False)]:
        acceptance = Acceptance({"high": threshold, "low": 0.0})
        strict = Classifier(replace(classifier.model, acceptance=acceptance))
        prediction = strict.predict(wave)
        assert (prediction.label, prediction.accepted) == ("high", accepted)
        assert ("none-of-these" in prediction.flags) is not accepted
        assert strict.predict(tone("low", seed=5, seconds=2.0)).accepted


def test_a_recording_unlike_the_training_set_is_told_in_words(classifier):
    rng = np.random.default_rng(0)
    heard = [profile(rng.normal(0, 0.1, 32_000).astype(np.float32), sample_rate=RATE)] * 40
    wary = Classifier(replace(classifier.model, profile=describe(heard)))
    told = wary.predict(tone("low", seed=1, seconds=3.0) * np.float32(1e-4))
    assert "quiet" in told.flags
    assert any("rounding is loud" in note for note in told.notes)


def test_a_file_its_bytes_and_its_samples_give_one_answer(classifier, tmp_path):
    wave = tone("low", seed=3, seconds=25)  # longer than two blocks
    path = tmp_path / "tone.wav"
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    answers = [classifier.predict(s) for s in (path, str(path), path.read_bytes(), wave)]
    assert [a.path for a in answers] == [str(path), str(path), "", ""]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.start_seconds, answers[0].start_seconds)
        np.testing.assert_allclose(
            answer.segment_probabilities, answers[0].segment_probabilities, atol=1e-6
        )
        assert answer.probabilities == pytest.approx(answers[0].probabilities, abs=1e-6)


@pytest.mark.parametrize("n_samples", [1, 100, 15_999])
def test_a_short_clip_is_padded_and_says_so(classifier, n_samples):
    wave = tone("low", seed=3)[:n_samples]
    prediction = classifier.predict(wave)
    assert prediction.flags == ("short",)
    assert "padded" in prediction.notes[0]
    assert prediction.duration_seconds == n_samples / RATE
    padded = classifier.predict(np.append(wave, np.zeros(RATE - n_samples, np.float32)))
    assert padded.flags == ()
    assert padded.probabilities == pytest.approx(prediction.probabilities)


def test_doubles_are_waveforms_too(classifier):
    wave = tone("high", seed=3)
    assert (
        classifier.predict(wave.astype(np.float64)).probabilities
        == classifier.predict(wave).probabilities
    )


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("signed", [True, False])
def test_whole_numbers_go_over_the_range_of_their_type(run_folder, bits, signed):
    classifier = load(run_folder)  # which knows what recordings are like
    wave = 0.5 * tone("high", seed=3)
    full, kind = 2 ** (bits - 1), f"int{bits}" if signed else f"uint{bits}"
    whole = (np.round(wave.astype(np.float64) * full) + (0 if signed else full)).astype(kind)
    wanted, found = classifier.predict(wave), classifier.predict(whole)
    assert found.flags == wanted.flags  # such as being at full scale
    assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-3)


WRONG = {
    "stereo": np.zeros((2, 16_000), np.float32),
    "empty": np.zeros(0, np.float32),
    "a number": np.array(0.0),
    "nan": np.append(noise(100), np.float32("nan")),
    "infinite": np.append(noise(100), np.float32("inf")),
    "infinite as float32": np.full(100, 1e300),
    "infinite when squared": np.append(noise(100), np.float32(1e20)),
    "complex": np.zeros(100, complex),
    "objects": np.array(["a", None], object),
    "text": np.array(["a", "b"]),
    "truths": np.ones(100, bool),
}


@pytest.mark.parametrize("array", WRONG.values(), ids=WRONG)
@pytest.mark.filterwarnings("ignore:overflow")
def test_wrong_arrays_are_a_programmers_mistake(classifier, array):
    with pytest.raises(ValueError, match="waveform"):
        classifier.predict(array)


@pytest.mark.parametrize("source", [[0.1, 0.2], None, 3])
def test_what_is_no_recording_at_all_is_a_programmers_mistake(classifier, source):
    with pytest.raises(ValueError, match=r"the source is a .*: give a path"):
        classifier.predict(source)


@pytest.mark.parametrize("rate", [0, -16_000, math.nan, math.inf, "16000", True])
def test_impossible_rates_are_a_programmers_mistake(classifier, rate):
    with pytest.raises(ValueError, match="sample_rate"):
        classifier.predict(noise(100), sample_rate=rate)


HOPS = [(None, 4096), ("dense", 1024), (1, 16_000), (0.5, 8000), (1 / 16_000, 1)]
HOPS += [(np.float32(0.5), 8000), (np.int64(1), 16_000)]


@pytest.mark.parametrize(("hop", "samples"), HOPS)
def test_hops_in_samples(classifier, hop, samples):
    assert classifier.hop_length(hop) == samples


def test_a_dense_hop_is_never_longer_than_a_segment():
    config = ModelConfig(("a", "b"), n_layers=8, n_filters=2, stride=4, segment_length=500)
    assert Classifier(random_model(config)).hop_length("dense") == 500


@pytest.mark.parametrize("hop", [0, -1, 1.01, 1e9, math.nan, math.inf, 1e-9, "sparse", "0.5"])
def test_hops_out_of_range_name_the_range(classifier, hop):
    with pytest.raises(UsageError, match="'dense' or seconds above 0, at most 1"):
        classifier.predict(noise(100), hop=hop)


def test_what_is_no_audio_is_told(classifier, tmp_path):
    (tmp_path / "x.wav").write_bytes(b"no audio")
    for source in (tmp_path / "x.wav", b"no audio"):
        with pytest.raises(AudioError):
            classifier.predict(source)
    with pytest.raises(StapesError, match=r"missing\.wav"):
        classifier.predict(tmp_path / "missing.wav")


def test_a_model_is_a_file_a_run_or_a_shipped_name(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(run_folder).classes == load(run_folder / "model.safetensors").classes
    shipped = {path.stem for path in SHIPPED.glob("*.safetensors")}
    assert "cats-dogs" in shipped
    for name in shipped:
        assert load(name).config.n_parameters > 0
    (tmp_path / "cats-dogs").mkdir()  # as fetched by "stapes fetch cats-dogs"
    assert load("cats-dogs").classes == ("cat", "dog")
    checkpoint.save("cats-dogs/model.safetensors", random_model(ModelConfig(("a", "b"))))
    assert load("cats-dogs").classes == ("a", "b")


@pytest.mark.parametrize("name", ["nothing", "dogs-cats", "../models/cats-dogs.txt", ""])
def test_a_model_that_is_not_there_names_those_that_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match="cats-dogs"):
        load(name)
