"""One safe file a model: weights, configuration, classes and a checksum over every byte.

The file is a plain safetensors file (never a pickle) whose only metadata entry, ``stapes``,
is JSON. Its ``checksum`` is the SHA-256 of the whole file with the checksum itself written
as zeros, so that no bit of the file can change unnoticed.
"""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from stapes.acceptance import Acceptance
from stapes.calibration import Calibration
from stapes.config import ModelConfig, as_dict
from stapes.engine import FoldedNetwork
from stapes.errors import ModelFileError, StapesError
from stapes.files import write_bytes
from stapes.profile import TrainingProfile

FORMAT_VERSION = 1
MODEL_FILE = "model.safetensors"
MAX_BYTES = 64 * 2**20
"""No preset comes near this size; larger files are refused unread."""

_FORGED = (LookupError, TypeError, ValueError, RecursionError)
"""What reading metadata may raise that somebody made up."""

_NO_CHECKSUM = "0" * 64
_CHECKSUM = re.compile(rb'\\"checksum\\": \\"([0-9a-f]{64})\\"')

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Model:
    """A trained network and what must be known to use it.

    Attributes:
        config: the network's numbers and its ordered classes.
        tensors: weights and normalisation statistics by name.
        about: what it was trained on and how (plain values, ready for JSON).
        calibration: the temperatures that make its probabilities true.
        acceptance: the thresholds below which a recording is none of the classes.
        profile: what the recordings were like that it learnt from, if that is known.
    """

    config: ModelConfig
    tensors: Tensors
    about: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    acceptance: Acceptance = field(default_factory=lambda: Acceptance({}))
    profile: TrainingProfile | None = None

    def fold(self) -> FoldedNetwork:
        """The network for inference, with normalisation folded into the convolutions."""
        return FoldedNetwork.fold(self.config, self.tensors)


def pack(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> bytes:
    """Tensors and JSON metadata as the bytes of one checksummed safetensors file."""
    document = json.dumps({"checksum": _NO_CHECKSUM, **metadata}, sort_keys=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    content = safetensors.numpy.save(arrays, metadata={"stapes": document})
    place = _checksum_place(content)
    return content[: place[0]] + _digest(content, place).encode() + content[place[1] :]


def unpack(content: bytes, *, name: str) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and metadata from the bytes of :func:`pack`.

    Args:
        content: the whole file.
        name: what the errors call it.

    Raises:
        ModelFileError: not such a file, or any byte of it changed.
    """
    place = _checksum_place(content)
    if place == (0, 0):  # only now, for the length of a header may look like a pickle
        if content[:1] == b"\x80" or content[:2] == b"PK":
            raise ModelFileError(f"{name}: a pickle, which can run code; stapes never loads one")
        raise ModelFileError(f"{name}: not a model file of stapes; train one with 'stapes train'")
    if content[place[0] : place[1]].decode() != _digest(content, place):
        raise ModelFileError(f"{name}: damaged (checksum differs); copy or train it again")
    try:
        tensors = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads(header["__metadata__"]["stapes"])
        if not isinstance(metadata, dict):
            raise TypeError("its metadata is no object")
    except (safetensors.SafetensorError, *_FORGED) as error:
        raise ModelFileError(f"{name}: forged or of another kind ({error})") from error
    return tensors, metadata


def save(path: str | Path, model: Model) -> None:
    """Write a model, atomically and with the same bytes for the same model."""
    metadata = {
        "format_version": FORMAT_VERSION,
        "config": as_dict(model.config),
        "about": model.about,
        "calibration": model.calibration.as_dict(),
        "acceptance": model.acceptance.as_dict(),
        "profile": model.profile.as_dict() if model.profile else None,
    }
    write_bytes(path, pack(model.tensors, metadata))


def load(path: str | Path) -> Model:
    """Read a model file, checking every byte of it.

    Raises:
        ModelFileError: missing, damaged, forged, or of a newer format.
    """
    tensors, metadata = unpack(_read(Path(path)), name=str(path))
    if "identity" in metadata:
        raise ModelFileError(f"{path}: the state of a training: give its model.safetensors")
    version = metadata.get("format_version")
    if type(version) is not int or version < 1:
        raise ModelFileError(f"{path}: forged or of another kind (its format is {version!r})")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: format {version} is newer than {FORMAT_VERSION}, the newest this version"
            " of stapes reads; upgrade stapes"
        )
    try:
        config = _config(metadata["config"])
        _check_shapes(config, tensors)
        _check_answers(config, tensors)
        return Model(
            config,
            tensors,
            _about(metadata.get("about", {})),
            calibration=_calibration(metadata.get("calibration")),
            acceptance=_acceptance(metadata.get("acceptance"), config),
            profile=_profile(metadata.get("profile")),
        )
    except (KeyError, TypeError, ValueError, StapesError) as error:
        raise ModelFileError(f"{path}: its parts do not fit together ({error})") from error


def _config(values: Any) -> ModelConfig:
    """JSON has lists where a configuration has tuples."""
    classes = values.get("classes") if isinstance(values, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"config is {values!r}")
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ModelConfig(**given)


def _about(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"about is {values!r}")
    return values


def _calibration(values: Any) -> Calibration:
    return Calibration.from_dict(values) if values else Calibration()


def _acceptance(values: Any, config: ModelConfig) -> Acceptance:
    if not values or values == Acceptance({}).as_dict():
        return Acceptance({})
    if not isinstance(values, dict):
        raise ValueError(f"acceptance is {values!r}")
    return Acceptance.from_dict(values, classes=config.classes)


def _profile(values: Any) -> TrainingProfile | None:
    return TrainingProfile.from_dict(values) if values else None


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelFileError(f"{path}: not a file; give a model file")
        if found.st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: larger than any model file; is it the right one?")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error


def _checksum_place(content: bytes) -> tuple[int, int]:
    header_length = int.from_bytes(content[:8], "little")
    match = _CHECKSUM.search(content, 8, min(8 + header_length, len(content)))
    return match.span(1) if match else (0, 0)


def _digest(content: bytes, place: tuple[int, int]) -> str:
    digest = hashlib.sha256(content[: place[0]])
    digest.update(_NO_CHECKSUM.encode())
    digest.update(content[place[1] :])
    return digest.hexdigest()


def _check_shapes(config: ModelConfig, tensors: Tensors) -> None:
    """Raise ValueError unless the tensors are exactly those of the configuration's network."""
    wanted = tensor_shapes(config)
    found = {name: array.shape for name, array in tensors.items()}
    if "none.weight" in found:
        wanted |= {"none.weight": (1, config.channels[-1]), "none.bias": (1,)}
    if found != wanted or any(a.dtype != np.float32 for a in tensors.values()):
        raise ValueError("the tensors are not those of the configuration")
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise ValueError("a weight is not finite")


def _check_answers(config: ModelConfig, tensors: Tensors) -> None:
    """Raise ValueError if finite weights do not make finite answers."""
    if any((tensors[f"norms.{i}.running_var"] < 0).any() for i in range(config.n_layers)):
        raise ValueError("a variance is negative")
    noise = np.random.default_rng(0).standard_normal((1, config.segment_length), np.float32)
    with np.errstate(all="ignore"):
        logits, none = FoldedNetwork.fold(config, tensors).logits_and_none(noise)
    if not np.isfinite(logits).all() or np.isnan(none).any():
        raise ValueError("its answers are not finite")


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's float32 tensors: the parameters and running statistics."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, shape in enumerate(config.kernel_shapes):
        shapes[f"convs.{i}.weight"] = shape
        shapes[f"convs.{i}.bias"] = shape[:1]
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"norms.{i}.{part}"] = shape[:1]
    n_pooled = config.channels[-1]
    return shapes | {"head.weight": (config.n_outputs, n_pooled), "head.bias": (config.n_outputs,)}
