"""Many recordings, one after the other; one bad file never costs the others."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from stapes.clips import Skip, listing
from stapes.errors import AudioError, DataError, UsageError
from stapes.folders import find_recordings
from stapes.inference import Classifier, Prediction, Vote, load
from stapes.progress import Progress, silent

Hop = float | Literal["dense"] | None


def predict(
    model: str | Path | Classifier,
    paths: str | Path | Iterable[str | Path],
    *,
    hop: Hop = None,
    vote: Vote = "mean",
    progress: Progress = silent,
) -> Iterator[Prediction | Skip]:
    """Classify files and everything in folders; what cannot be read is said, not raised.

    Args:
        model: a model file, a run folder, the name of a shipped model, or a loaded one.
        paths: files and folders.
        hop: seconds between segments, "dense", or None for a quarter of a segment.
        vote: how the segments' answers become the recording's.
        progress: told after each recording.

    Returns:
        The answer for each recording in turn, or why it was skipped, as they are asked for.

    Raises:
        UsageError: a path that does not exist, or a hop out of range.
        DataError: there are no recordings at all.
        ModelFileError: there is no such model, or its file is damaged.
    """
    classifier = model if isinstance(model, Classifier) else load(model)
    classifier.hop_length(hop)  # a bad hop is told before any reading
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    recordings = list(_expand(paths))
    if not recordings:
        raise DataError(
            f"no recordings in {listing(list(map(str, paths)))}: give files or folders of them"
        )

    def answers() -> Iterator[Prediction | Skip]:
        for done, item in enumerate(recordings, start=1):
            yield item if isinstance(item, Skip) else _one(classifier, item, hop=hop, vote=vote)
            progress("predicting", done, len(recordings), "")

    return answers()


def _expand(paths: Iterable[str | Path]) -> Iterator[Path | Skip]:
    for path in map(Path, paths):
        if os.path.isdir(path):  # which a folder that must not be looked into does not raise
            found = find_recordings(path)
            yield from (Skip(str(path / s.name), s.reason) for s in found.skipped)
            yield from (path / name for name in found.names)
        elif _is_there(path):
            yield path
        else:
            raise UsageError(f"{path}: no such file or folder; check the name")


def _is_there(path: Path) -> bool:
    """Whether there is a file, or a link that leads nowhere, or what must not be looked into."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        pass
    return True


def _one(classifier: Classifier, path: Path, *, hop: Hop, vote: Vote) -> Prediction | Skip:
    try:
        return classifier.predict(path, hop=hop, vote=vote)
    except AudioError as error:
        return Skip(str(path), str(error).removeprefix(f"{path}: "))
