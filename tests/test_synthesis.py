"""Barks and meows: what makes them what they are, and that no cheap rule tells them apart."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stapes import synthesis
from stapes.errors import StapesError, UsageError
from stapes.synthesis import CLASSES, bark, clip, meow, write_demo

SAMPLE_RATE = 16_000


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo") / "recordings", seed=0)


@pytest.fixture(scope="module")
def rows(demo):
    with (demo / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def waveforms(demo, rows):
    return [soundfile.read(demo / row["file_name"])[0] for row in rows]


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)) for path in files]
    content = b"".join(path.read_bytes() for path in files)
    return hashlib.sha256("".join(names).encode() + content).hexdigest()


def loudest_hz(sound):
    """Pitch by autocorrelation between 150 and 1,200 Hz, in the middle fifth of a call."""
    middle = sound[2 * len(sound) // 5 : 3 * len(sound) // 5]
    lags = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    low, high = SAMPLE_RATE // 1_200, SAMPLE_RATE // 150
    return SAMPLE_RATE / (low + int(np.argmax(lags[low:high])))


@pytest.mark.parametrize(("call", "shortest", "longest"), [(bark, 0.08, 0.25), (meow, 0.25, 1.2)])
def test_calls_have_the_length_of_their_kind_and_a_peak_of_one(call, shortest, longest):
    for seed in range(20):
        sound = call(np.random.default_rng(seed), SAMPLE_RATE)
        assert sound.dtype == np.float32
        assert shortest - 1e-3 <= sound.size / SAMPLE_RATE <= longest + 1e-3
        assert np.abs(sound).max() == pytest.approx(1.0)
        # A call that started or stopped at once would be heard as a click.
        assert abs(sound[0]) < 1e-3 and abs(sound[-1]) < 1e-3


def test_pitch_of_a_meow_falls_with_the_size_of_the_cat():
    pitches = {
        size: np.median(
            [loudest_hz(meow(np.random.default_rng(s), SAMPLE_RATE, size=size)) for s in range(15)]
        )
        for size in (0.0, 1.0)
    }
    assert 350 < pitches[1.0] < 460 < 620 < pitches[0.0] < 850


def test_barks_are_noisier_than_meows():
    def harmonicity(call):
        """Height of the autocorrelation at the pitch, 1 for a perfectly periodic sound."""
        values = []
        for seed in range(20):
            sound = call(np.random.default_rng(seed), SAMPLE_RATE)
            middle = sound[2 * len(sound) // 5 : 3 * len(sound) // 5]
            lags = np.correlate(middle, middle, "full")[len(middle) - 1 :] / (middle @ middle)
            values.append(lags[SAMPLE_RATE // 1_200 : SAMPLE_RATE // 150].max())
        return np.median(values)

    assert harmonicity(bark) < harmonicity(meow) - 0.1


def test_harmonics_that_would_pass_the_nyquist_frequency_are_left_out():
    """While the pitch is 1,500 Hz there is sound at its multiples alone, though at 400 Hz the
    same voice had 19 harmonics, of which the 6th to 19th would now fold back."""
    f0 = np.repeat([400.0, 1_500.0], SAMPLE_RATE // 2)
    formants = np.array([[1_000.0], [3_000.0], [5_000.0]])
    sound = synthesis._voiced(f0, formants, sample_rate=SAMPLE_RATE, tilt_db=0.0)
    late = sound[-4_096:]
    spectrum = np.abs(np.fft.rfft(late * np.hanning(late.size))) ** 2
    frequency = np.fft.rfftfreq(late.size, 1 / SAMPLE_RATE)
    between = np.abs(frequency - 1_500 * np.round(frequency / 1_500)) > 50
    assert spectrum[between].sum() / spectrum.sum() < 1e-6


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100])
def test_clips_have_the_length_and_level_asked_for(label, sample_rate):
    for seed in range(3):
        sound = clip(label, np.random.default_rng(seed), seconds=1.3, sample_rate=sample_rate)
        assert sound.shape == (round(1.3 * sample_rate),)
        assert sound.dtype == np.float32
        assert 0.099 < np.abs(sound).max() <= 1


def test_clip_refuses_an_unknown_label():
    with pytest.raises(ValueError, match="'moo'"):
        clip("moo", np.random.default_rng(0))


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path):
    first, again, other = (
        digest(write_demo(tmp_path / name, n_sources=4, seed=seed))
        for name, seed in (("first", 5), ("again", 5), ("other", 6))
    )
    assert first == again != other


def test_a_source_sounds_the_same_however_many_there_are(tmp_path):
    few = write_demo(tmp_path / "few", n_sources=2)
    more = write_demo(tmp_path / "more", n_sources=6)
    for path in few.rglob("*.wav"):
        assert path.read_bytes() == (more / path.relative_to(few)).read_bytes()


def test_metadata_lists_every_file_in_the_right_folder(demo, rows):
    on_disk = {str(path.relative_to(demo)) for path in demo.rglob("*.wav")}
    assert {row["file_name"] for row in rows} == on_disk
    assert 120 <= len(rows) <= 200
    assert all(row["file_name"].split("/")[0] == row["label"] for row in rows)
    assert {row["label"] for row in rows} == set(CLASSES)
    info = soundfile.info(demo / rows[0]["file_name"])
    assert (info.format, info.subtype, info.samplerate, info.channels) == (
        "WAV",
        "PCM_16",
        16_000,
        1,
    )


def test_every_fold_has_both_classes_and_no_source_is_split(rows):
    folds = {}
    for row in rows:
        folds.setdefault(row["source"], set()).add(row["fold"])
    assert all(len(numbers) == 1 for numbers in folds.values())
    pairs = {(row["label"], row["fold"]) for row in rows}
    assert pairs == {(label, fold) for label in CLASSES for fold in "12345"}


def test_recordings_of_one_source_share_samples(demo, rows):
    pairs = [row["file_name"] for row in rows if row["file_name"].endswith("_b.wav")]
    assert len(pairs) == 30
    for name in pairs:
        first = soundfile.read(demo / name.replace("_b.", "_a."), dtype="int16")[0]
        second = soundfile.read(demo / name, dtype="int16")[0]
        shared = first[-1_600:].tobytes()
        assert shared in second.tobytes()
        assert len(first) >= SAMPLE_RATE and len(second) >= SAMPLE_RATE


def test_a_folder_in_use_is_refused_and_overwriting_spares_what_is_not_ours(tmp_path):
    folder = write_demo(tmp_path / "demo", n_sources=8)
    (folder / "bark" / "mine.wav").write_bytes(b"mine")
    with pytest.raises(UsageError, match="--overwrite"):
        write_demo(folder, n_sources=2)
    write_demo(folder, n_sources=2, overwrite=True)
    assert sorted(path.name for path in folder.rglob("*.wav")) == [
        "bark_000_a.wav",
        "bark_000_b.wav",
        "meow_001_a.wav",
        "meow_001_b.wav",
        "mine.wav",
    ]


def test_one_source_and_a_folder_that_is_a_file_are_refused(tmp_path):
    with pytest.raises(UsageError, match="n_sources is 1"):
        write_demo(tmp_path / "demo", n_sources=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(StapesError, match="file"):
        write_demo(tmp_path / "file")


def balanced_accuracy(features, rows, model):
    """Of a model trained on four folds and asked about the fifth, over all five."""
    from sklearn.metrics import balanced_accuracy_score

    features = np.asarray(features).reshape(len(rows), -1)
    labels = np.array([row["label"] for row in rows])
    folds = np.array([row["fold"] for row in rows])
    answers = labels.copy()
    for fold in set(folds):
        answers[folds == fold] = model.fit(features[folds != fold], labels[folds != fold]).predict(
            features[folds == fold]
        )
    return balanced_accuracy_score(labels, answers)


RULES = {
    "rms": lambda x: np.sqrt(np.mean(x**2)),
    "peak": lambda x: np.abs(x).max(),
    "duration": len,
    "zero crossings": lambda x: np.mean(np.diff(np.signbit(x))),
}


@pytest.mark.parametrize("rule", RULES)
def test_no_threshold_on_one_cheap_number_tells_the_classes_apart(rule, waveforms, rows):
    tree = pytest.importorskip("sklearn.tree")
    stump = tree.DecisionTreeClassifier(max_depth=1, random_state=0)
    assert balanced_accuracy([RULES[rule](x) for x in waveforms], rows, stump) <= 0.6


def average_spectrum(waveform, *, n_bands=32, length=512):
    """Mean and spread over time of the log energy in equal bands, blind to the level."""
    frames = waveform[: waveform.size // length * length].reshape(-1, length) * np.hanning(length)
    energy = np.log(np.abs(np.fft.rfft(frames))[:, 1:] ** 2 + 1e-9)
    bands = energy.reshape(len(frames), n_bands, -1).mean(axis=2)
    return np.concatenate([bands.mean(axis=0) - bands.mean(), bands.std(axis=0)])


def test_average_spectra_tell_the_classes_apart_but_not_perfectly(waveforms, rows):
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1_000))
    spectra = [average_spectrum(x) for x in waveforms]
    assert 0.8 <= balanced_accuracy(spectra, rows, model) <= 0.97
