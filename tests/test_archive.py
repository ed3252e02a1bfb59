"""Many recordings: every one is answered or said to be skipped, none costs another."""

import os
import socket

import numpy as np
import pytest

from stapes.archive import predict
from stapes.clips import Skip
from stapes.errors import DataError, ModelFileError, UsageError
from stapes.inference import load
from tones import write_tone


@pytest.fixture(scope="module")
def classifier(run_folder):
    return load(run_folder)


@pytest.fixture
def folder(tmp_path):
    """Four recordings at two depths."""
    for i, name in enumerate(["b.wav", "a.wav", "deep/er/c.wav", "deep/a.wav"]):
        write_tone(tmp_path / "in" / name, ("low", "high")[i % 2], seed=i)
    return tmp_path / "in"


def names(results) -> list[str]:
    return [result.path for result in results if not isinstance(result, Skip)]


def skips(results) -> dict[str, str]:
    return {result.name: result.reason for result in results if isinstance(result, Skip)}


def test_folders_are_searched_and_answers_are_those_of_single_files(classifier, folder):
    results = list(predict(classifier, [folder]))
    wanted = {str(folder / n) for n in ("a.wav", "b.wav", "deep/a.wav", "deep/er/c.wav")}
    assert len(results) == 4
    assert set(names(results)) == wanted
    for result in results:
        alone = classifier.predict(result.path)
        assert result.probabilities == alone.probabilities
        np.testing.assert_array_equal(result.segment_probabilities, alone.segment_probabilities)


def test_files_come_in_the_order_they_are_given(classifier, folder):
    given = [folder / "b.wav", folder / "deep/a.wav", folder / "a.wav", folder / "b.wav"]
    assert names(predict(classifier, given)) == [str(path) for path in given]


def test_a_single_path_is_a_path_and_not_its_letters(classifier, folder):
    for path in (folder / "a.wav", str(folder / "a.wav")):
        assert names(predict(classifier, path)) == [str(folder / "a.wav")]


def test_hop_and_vote_reach_every_recording(classifier, folder):
    path = folder / "a.wav"
    [dense] = predict(classifier, [path], hop="dense", vote="majority")
    alone = classifier.predict(path, hop="dense", vote="majority")
    assert len(dense.start_seconds) == len(alone.start_seconds) > 3
    assert dense.probabilities == alone.probabilities


def test_a_model_may_be_a_path(run_folder, folder):
    assert len(names(predict(run_folder, [folder / "a.wav"]))) == 1
    with pytest.raises(ModelFileError):
        predict(folder / "no model", [folder])


def test_bad_files_are_skipped_with_a_reason_and_no_other_is_lost(classifier, folder):
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_bytes(b"<html>not found</html>")
    (folder / "noise.flac").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    (folder / "folder.wav").mkdir()
    (folder / ".DS_Store").write_bytes(b"x")
    results = list(predict(classifier, [folder]))
    told = skips(results)
    assert set(told) >= {
        str(folder / n) for n in ("empty.wav", "text.wav", "noise.flac", "dangling.wav")
    }
    assert all(reason and "\n" not in reason for reason in told.values())
    assert not any(path in reason for path, reason in told.items())  # the path is said once
    assert len(names(results)) == 4
    assert str(folder / ".DS_Store") not in told


def test_what_would_block_is_skipped_when_named_and_when_found(classifier, folder):
    os.mkfifo(folder / "fifo.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.wav"))
        found = skips(predict(classifier, [folder]))
        named = skips(predict(classifier, [folder / "fifo.wav", folder / "s.wav", "/dev/zero"]))
    assert set(found) == {str(folder / "fifo.wav"), str(folder / "s.wav")}
    assert set(named) == {*found, "/dev/zero"}


def test_files_that_vanish_during_the_run_are_skipped(classifier, folder):
    found = predict(classifier, [folder])
    first = next(found)
    for path in folder.rglob("*.wav"):
        path.unlink()
    rest = list(found)
    assert not isinstance(first, Skip)
    assert len(rest) == len(skips(rest)) == 3


def test_names_that_are_not_text_come_back_as_they_are(classifier, folder):
    name = os.fsdecode(b"caf\xe9\n\xf0\x9f\x90\xb1.wav")
    write_tone(folder / name, "low", seed=9)
    assert str(folder / name) in names(predict(classifier, [folder]))
    assert names(predict(classifier, [folder / name])) == [str(folder / name)]


def test_a_path_that_does_not_exist_is_told_before_any_work(classifier, folder):
    with pytest.raises(UsageError, match=r"missing\.wav: no such file"):
        predict(classifier, [folder / "a.wav", folder / "missing.wav"])


def test_a_wrong_hop_is_told_before_any_work(classifier, folder):
    with pytest.raises(UsageError, match="hop is 7"):
        predict(classifier, [folder], hop=7)


def test_no_recordings_at_all_is_an_error(classifier, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no recordings in .*empty"):
        predict(classifier, [tmp_path / "empty"])
    with pytest.raises(DataError, match="no recordings"):
        predict(classifier, [])


def test_progress_counts_every_recording_once(classifier, folder):
    (folder / "empty.wav").write_bytes(b"")
    told = []
    results = list(predict(classifier, [folder], progress=lambda *counts: told.append(counts)))
    assert told == [("predicting", i, 5, "") for i in range(1, 6)]
    assert len(results) == 5
