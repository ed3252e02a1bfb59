"""Sound recognition straight from the waveform.

>>> import stapes
>>> stapes.load("cats-dogs").classes
('cat', 'dog')
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stapes.archive import predict as predict
    from stapes.assessment import evaluate as evaluate
    from stapes.auditing import audit as audit
    from stapes.crossvalidation import crossval as crossval
    from stapes.demonstration import demo as demo
    from stapes.download import fetch as fetch
    from stapes.explanation import explain as explain
    from stapes.holdout import train as train
    from stapes.inference import load as load
    from stapes.notebook import reproduce as reproduce
    from stapes.reporting import report as report

__version__ = "0.1.0"

_HOMES = {
    "audit": "auditing",
    "crossval": "crossvalidation",
    "demo": "demonstration",
    "evaluate": "assessment",
    "explain": "explanation",
    "fetch": "download",
    "load": "inference",
    "predict": "archive",
    "report": "reporting",
    "reproduce": "notebook",
    "train": "holdout",
}
"""Where the public functions live; each is imported when it is first asked for."""

__all__ = [*_HOMES, "__version__"]


def __dir__() -> list[str]:
    """The public names, also those that were not used yet."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import a public function when it is first used, so that importing stapes is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stapes' has no attribute {name!r}")
    return getattr(import_module(f"stapes.{_HOMES[name]}"), name)
