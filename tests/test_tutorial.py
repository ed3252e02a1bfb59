"""The tutorial, run whole on a few synthesised recordings, and what it found recomputed."""

import base64
import io
import os
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image
from torch.nn import functional as F

import stapes

PATH = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"

# A cell put before the first one: three full epochs of section 11 would take too long.
SHORTEN = """
import dataclasses, stapes.notebook
stapes.notebook.PLAIN = dataclasses.replace(stapes.notebook.PLAIN, steps_per_epoch=10)
"""

# A cell put behind the last one: it hands over what the tutorial computed.
PROBE = """
part = explanations[classes[0]].segment
np.savez(
    os.environ["STAPES_TUTORIAL_PROBE"],
    n_parameters=n_parameters,
    training=[clips[i].name for i in training],
    test=[clips[i].name for i in test],
    waveform_lengths=[len(w) for w in waveforms],
    batch=batch.segments,
    segment=part.input,
    filter_contributions=part.filter_contributions,
    frame_contributions=part.frame_contributions,
    votes=votes,
    by_mean=by_mean,
    **{f"network.{name}": tensor for name, tensor in state.best.items()},
)
"""


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(PATH, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after a quick run in a kernel of its own, and what its last cell saved."""
    folder = tmp_path_factory.mktemp("tutorial")
    notebook = nbformat.read(PATH, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SHORTEN))
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAPES_TUTORIAL_QUICK", "1")
        patch.delenv("STAPES_TUTORIAL_DATA", raising=False)
        patch.setenv("STAPES_TUTORIAL_PROBE", str(folder / "probe.npz"))
        patch.setenv("PYTHONPATH", str(Path(stapes.__file__).parents[1]), prepend=os.pathsep)
        patch.setenv("IPYTHONDIR", str(folder))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
        client = NotebookClient(notebook, timeout=300, kernel_name="python3")
        client.execute(cwd=str(folder))
    with np.load(folder / "probe.npz") as probe:
        return notebook, dict(probe)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook):
    """Every PNG among the outputs."""
    return [
        Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def forward(segment, tensors):
    """Logit [1] of a segment [T], in double precision and without folding."""
    x = torch.from_numpy(segment).double()[None, None]
    weights = {name: torch.from_numpy(value).double() for name, value in tensors.items()}
    for i in range(10):
        x = F.pad(x, (0, 1) if x.shape[2] % 2 == 0 else (1, 1))
        x = F.conv1d(x, weights[f"convs.{i}.weight"], weights[f"convs.{i}.bias"], stride=2)
        mean, variance, scale, shift = (
            weights[f"norms.{i}.{name}"]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.relu(F.batch_norm(x, mean, variance, scale, shift, eps=1e-3))
    return (x.mean(dim=2) @ weights["head.weight"].T + weights["head.bias"])[0].numpy()


def test_stored_notebook_is_valid_small_and_portable(stored):
    nbformat.validate(stored)
    ids = [cell.id for cell in stored.cells]
    assert stored.nbformat == 4
    assert len(set(ids)) == len(ids)
    assert PATH.stat().st_size < 500_000
    text = re.sub(r"[A-Za-z0-9+/=\\]{200,}", "", PATH.read_text(encoding="utf-8"))  # no pictures
    assert not re.search(r"[\"' (](/(home|root|tmp|usr|var|work|Users|mnt)\b|[A-Z]:\\\\)", text)


def test_stored_outputs_are_of_one_run_without_errors(stored):
    outputs = [output for cell in code_cells(stored) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    counts = [cell.execution_count for cell in code_cells(stored)]
    assert counts in (list(range(1, len(counts) + 1)), [None] * len(counts))


def test_every_code_cell_ran(executed):
    notebook, _ = executed
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]


def test_pictures_are_drawn(executed):
    notebook, _ = executed
    images = pictures(notebook)
    assert len(images) >= 14
    for image in images:
        assert min(image.size) > 150
        ink = np.asarray(image.convert("L")) < 200
        assert 0.002 < ink.mean() < 0.6


def test_parameters_are_the_seeds(executed):
    _, probe = executed
    learnt = [
        value.size
        for name, value in probe.items()
        if name.startswith("network.") and "running" not in name
    ]
    assert probe["n_parameters"] == sum(learnt) == 3041


def test_no_source_is_on_both_sides(executed):
    _, probe = executed
    sources = [{name.rsplit("_", 1)[0] for name in probe[part]} for part in ("training", "test")]
    assert sources[0].isdisjoint(sources[1])
    assert len(probe["training"]) + len(probe["test"]) == len(probe["waveform_lengths"])


def test_contributions_add_up_to_the_logit(executed):
    _, probe = executed
    tensors = {k.removeprefix("network."): v for k, v in probe.items() if k.startswith("network.")}
    logit = forward(probe["segment"], tensors)
    assert abs(logit).max() > 1e-3
    for part in ("filter_contributions", "frame_contributions"):
        added = tensors["head.bias"] + probe[part].sum(axis=1)
        np.testing.assert_allclose(added, logit, atol=1e-4)


def test_votes_are_averaged(executed):
    _, probe = executed
    sums = [sum(column) / len(column) for column in zip(*probe["votes"].tolist(), strict=True)]
    np.testing.assert_allclose(probe["by_mean"], sums, atol=1e-6)


def test_segments_fill_a_batch(executed):
    _, probe = executed
    assert probe["batch"].shape == (32, 16_000)
    assert np.abs(probe["batch"]).max(axis=1).min() > 0
    assert all(not np.array_equal(a, b) for a, b in pairwise(probe["batch"]))
