"""What can go wrong because of what the user gave: one root error and a few children.

Every message is one line that names the file, the value found, the value wanted and the
fix. Only ``cli.py`` prints and catches these; a programmer's mistake is a ``ValueError``.
"""

from typing import ClassVar


class StapesError(Exception):
    """Root of every error caused by what the user gave; exit code 4."""

    exit_code: ClassVar[int] = 4


class UsageError(StapesError):
    """An option or argument that cannot be used as given; exit code 2."""

    exit_code: ClassVar[int] = 2


class AudioError(StapesError):
    """A recording that holds no audio we can vouch for; many-file commands skip it."""


class DataError(StapesError):
    """Folders, labels or splits that cannot be trained or measured on."""


class ModelFileError(StapesError):
    """A model file that is damaged, forged or of an unknown format."""


class TrainingError(StapesError):
    """Training that could not go on; the last good state is kept."""


class StopRequestedError(StapesError):
    """Ctrl-C or a request to end; what was done is saved. Exit code 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        """Remember which signal it was."""
        super().__init__(message)
        self.exit_code = 128 + signal_number  # type: ignore[misc]
