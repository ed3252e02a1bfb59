"""Model files: the same bytes for the same model, and no change that goes unnoticed."""

import hashlib
import json
import pickle

import numpy as np
import pytest
import safetensors.numpy

from stapes import checkpoint
from stapes.checkpoint import Model
from stapes.config import ModelConfig
from stapes.errors import ModelFileError
from stapes.inference import load

CONFIG = ModelConfig(("cat", "<b>dog</b>"), n_layers=2, n_filters=3, segment_length=64)


def model() -> Model:
    rng = np.random.default_rng(0)
    shapes = checkpoint.tensor_shapes(CONFIG)
    tensors = {
        name: rng.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()
    }
    return Model(CONFIG, tensors, {"sources": 3})


@pytest.fixture
def path(tmp_path):
    checkpoint.save(tmp_path / "model.safetensors", model())
    return tmp_path / "model.safetensors"


def test_what_is_saved_comes_back_and_the_bytes_are_always_the_same(path, tmp_path):
    found = checkpoint.load(path)
    assert found.config == CONFIG
    assert found.about == {"sources": 3}
    for name, array in model().tensors.items():
        np.testing.assert_array_equal(found.tensors[name], array)
    for i in range(5):
        checkpoint.save(tmp_path / f"{i}", model())
        assert (tmp_path / f"{i}").read_bytes() == path.read_bytes()


def test_any_safetensors_reader_can_open_it(path):
    tensors = safetensors.numpy.load_file(path)
    assert set(tensors) == set(checkpoint.tensor_shapes(CONFIG))


def test_every_single_flipped_bit_is_noticed(path):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(0, len(content), 7), len(content) - 1]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(ModelFileError, match=str(path)):
            checkpoint.load(path)


def test_every_truncation_is_noticed(path):
    content = path.read_bytes()
    for length in [0, 1, 8, 9, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match=str(path)):
            checkpoint.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ModelFileError):
        checkpoint.load(path)


class Bomb:
    """Unpickling this would fail the test."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def header_of(size: int) -> bytes:
    return size.to_bytes(8, "little") + b"{" * 64


def newer() -> bytes:
    return checkpoint.pack(model().tensors, {"format_version": 99, "config": {}})


def wrong_shape() -> bytes:
    tensors = model().tensors | {"head.bias": np.zeros(7, np.float32)}
    return checkpoint.pack(tensors, {"format_version": 1, "config": plain(CONFIG)})


def not_finite() -> bytes:
    tensors = model().tensors | {"head.bias": np.full(1, np.nan, np.float32)}
    return checkpoint.pack(tensors, {"format_version": 1, "config": plain(CONFIG)})


def negative_variance() -> bytes:
    tensors = model().tensors
    tensors |= {"norms.0.running_var": -tensors["norms.0.running_var"]}
    return checkpoint.pack(tensors, {"format_version": 1, "config": plain(CONFIG)})


def overflowing() -> bytes:
    tensors = {name: np.full_like(array, 1e38) for name, array in model().tensors.items()}
    return checkpoint.pack(tensors, {"format_version": 1, "config": plain(CONFIG)})


def told_of_in_a_list() -> bytes:
    metadata = {"format_version": 1, "config": plain(CONFIG), "about": []}
    return checkpoint.pack(model().tensors, metadata)


def absurd_config() -> bytes:
    config = plain(CONFIG) | {"n_layers": 10**9}
    return checkpoint.pack(model().tensors, {"format_version": 1, "config": config})


def sealed(document: str, *, entry: str = "stapes") -> bytes:
    """A file with a good checksum, whatever its metadata is."""
    zeros = "0" * 64
    content = safetensors.numpy.save(
        {"x": np.zeros(1, np.float32)}, {entry: document.replace("SUM", f'"checksum": "{zeros}"')}
    )
    found = hashlib.sha256(content).hexdigest()
    assert content.count(zeros.encode()) == 1
    return content.replace(zeros.encode(), found.encode())


def classes_that_are_numbers() -> bytes:
    config = plain(CONFIG) | {"classes": [1, 2]}
    return checkpoint.pack(model().tensors, {"format_version": 1, "config": config})


def plain(config: ModelConfig) -> dict:
    return json.loads(json.dumps(checkpoint.as_dict(config)))


def many_tensors() -> bytes:
    entry = '"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = "{" + ",".join(entry % i for i in range(100_000)) + "}"
    return len(header).to_bytes(8, "little") + header.encode()


FORGED = [
    ("a pickle", lambda: pickle.dumps(Bomb()), "pickle"),
    ("a zip, as torch saves", lambda: b"PK\3\4" + bytes(100), "pickle"),
    ("text", lambda: b"hello", "not a model file"),
    ("header of 100 MB", lambda: header_of(100_000_000), "not a model file"),
    ("header of 2^63", lambda: header_of(2**63), "not a model file"),
    ("100,000 tensors", many_tensors, "not a model file"),
    ("a newer format", newer, "99.*newer than 1"),
    ("a tensor of another shape", wrong_shape, "do not fit"),
    ("a weight that is not finite", not_finite, "do not fit|finite"),
    ("a negative variance", negative_variance, "do not fit.*negative"),
    ("weights that overflow", overflowing, "do not fit.*not finite"),
    ("a history that is none", told_of_in_a_list, "do not fit.*about"),
    ("a configuration out of range", absurd_config, "do not fit"),
    ("classes that are numbers", classes_that_are_numbers, "do not fit.*classes"),
    ("no metadata of ours", lambda: sealed("{SUM}", entry="other"), "forged"),
    ("metadata in a list", lambda: sealed("[{SUM}]"), "forged"),
    ("metadata that is no JSON", lambda: sealed("{SUM"), "forged"),
    (
        "deep metadata",
        lambda: sealed("{SUM, " + '"x": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        "forged",
    ),
    ("a format that is true", lambda: sealed('{SUM, "format_version": true}'), "format is True"),
    ("a format below 1", lambda: sealed('{SUM, "format_version": -5}'), "format is -5"),
]


@pytest.mark.parametrize(
    ("content", "told"), [row[1:] for row in FORGED], ids=[r[0] for r in FORGED]
)
def test_forged_files_are_refused_in_one_line(tmp_path, content, told):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content())
    with pytest.raises(ModelFileError, match=told) as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_a_header_of_any_length_is_read_even_one_that_begins_like_a_pickle():
    first_bytes = set()
    for length in range(0, 256, 4):  # headers are padded to eight bytes
        content = checkpoint.pack({"x": np.zeros(1, np.float32)}, {"note": "x" * length})
        tensors, metadata = checkpoint.unpack(content, name="model")
        assert list(tensors) == ["x"]
        assert len(metadata["note"]) == length
        first_bytes.add(content[0])
    assert 0x80 in first_bytes


def test_a_file_larger_than_any_model_is_not_read(tmp_path):
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(checkpoint.MAX_BYTES + 1)
    with pytest.raises(ModelFileError, match="larger"):
        checkpoint.load(path)


def test_an_unknown_model_names_the_shipped_ones(tmp_path):
    with pytest.raises(ModelFileError, match="cats-dogs"):
        load(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match="no such model"):
        load(tmp_path)
