"""The notebook's protocol with its faults, as they are described, beside the honest one."""

import re
from dataclasses import replace

import numpy as np
import pytest

from stapes import notebook, training
from stapes.errors import UsageError
from stapes.notebook import PUBLISHED, ROWS, reproduce
from tones import write_tone


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Result of two seeds on tones, a source a pair; what was learnt from and measured on."""
    root = tmp_path_factory.mktemp("tones")
    lines = ["file_name,label,source"]
    for label in ("low", "high"):
        for i in range(10):
            write_tone(root / f"{label}{i}.wav", label, seed=i, seconds=1.2, level=1 / (1 + i))
            lines.append(f"{label}{i}.wav,{label},{label}{i // 2}")
    (root / "metadata.csv").write_text("\n".join(lines))
    fits, measures = [], []
    fit, measure = training.fit, notebook.measure

    def watch_fit(config, settings, *, training, **more):
        fits.append((config, settings, training))
        return fit(config, settings, training=training, **more)

    def watch_measure(network, clips, waveforms):
        measures.append((network.config, clips, waveforms))
        return measure(network, clips, waveforms)

    with pytest.MonkeyPatch.context() as patch:
        plain = replace(notebook.PLAIN, steps_per_epoch=2, batch_size=2)
        patch.setattr(notebook, "PLAIN", plain)
        patch.setattr(training, "fit", watch_fit)
        patch.setattr(notebook, "measure", watch_measure)
        results = reproduce(root, seeds=2, epochs=1)
    return results, fits, measures


def test_all_rows_and_the_gaps_between_them(seen):
    results, _, _ = seen
    assert results["published"] == PUBLISHED == {"segments": 0.7, "clips": 0.7}
    for row in ROWS:
        for part in ("segments", "clips"):
            assert 0 <= results[row][part]["accuracy"] <= 1
        assert results[row]["parameters"] == 3041
    for gap, row in {"gap": "notebook", "leak": "split_by_file"}.items():
        for part in ("segments", "clips"):
            wanted = results[row][part]["accuracy"] - results["honest"][part]["accuracy"]
            assert results[gap][part] == pytest.approx(wanted)
    assert results["seeds"] == 2
    assert results["settings"]["epochs"] == 1
    assert {"seconds", "version", "skipped", "warnings"} <= set(results)


def test_all_protocols_take_the_same_plain_steps(seen):
    _, fits, _ = seen
    assert [settings.seed for _, settings, _ in fits] == [0, 0, 0, 1, 1, 1]
    for config, settings, _ in fits:
        assert config.n_parameters == 3041
        assert settings == replace(fits[0][1], seed=settings.seed)
        assert settings.speed == settings.mixing == settings.averaging == 0


def test_both_of_our_rows_draw_by_the_recordings_sources(seen):
    _, fits, _ = seen
    for _, _, examples in fits[1::3] + fits[2::3]:
        sources = dict(zip(examples.names, examples.sources, strict=True))
        pairs = [
            (f"{c}{i}.wav", f"{c}{i + 1}.wav") for c in ("low", "high") for i in (0, 2, 4, 6, 8)
        ]
        whole = [pair for pair in pairs if sources.keys() >= set(pair)]
        assert whole and all(sources[one] == sources[other] for one, other in whole)


def test_the_notebook_joins_a_class_and_normalises_it_by_itself(seen):
    _, fits, _ = seen
    for config, _, examples in fits[::3]:
        assert not config.normalise
        assert list(examples.names) == ["high", "low"]
        for waveform in examples.waveforms:
            assert len(waveform) == 8 * round(1.2 * 16_000)  # eight of its ten files
            assert (waveform.mean(), waveform.std()) == pytest.approx((0, 1), abs=1e-4)
    for config, _, examples in fits[1::3] + fits[2::3]:
        assert config.normalise
        assert len(examples.waveforms) == 16


def test_the_label_leaks_into_the_notebooks_test_recordings_only(seen):
    _, _, measures = seen
    for (_, clips, leaking), (_, same, blind) in zip(measures[::4], measures[1::4], strict=True):
        assert clips == same
        for label in ("high", "low"):
            of_class = [w for c, w in zip(clips, leaking, strict=True) if c.label == label]
            joined = np.concatenate(of_class)
            assert (joined.mean(), joined.std()) == pytest.approx((0, 1), abs=1e-4)
            assert max(abs(w.std() - 1) for w in of_class) > 0.01  # not each by itself
        for waveform in blind:
            assert (waveform.mean(), waveform.std()) == pytest.approx((0, 1), abs=1e-4)


def recording(name: str) -> str:
    """What a file was cut from, by the table above."""
    label, number = re.fullmatch(r"(\D+)(\d)\.wav", name).groups()
    return f"{label}{int(number) // 2}"


@pytest.mark.parametrize(("row", "kept_whole"), [("split_by_file", False), ("honest", True)])
def test_only_the_honest_split_keeps_sources_whole(seen, row, kept_whole):
    _, fits, measures = seen
    shared = 0
    for (_, _, examples), (_, clips, _) in zip(
        fits[ROWS.index(row) - 1 :: 3], measures[ROWS.index(row) :: 4], strict=True
    ):
        held = {clip.name for clip in clips}
        assert len(held) == 4
        assert held.isdisjoint(examples.names)
        shared += len({recording(n) for n in held} & {recording(n) for n in examples.names})
    assert (shared == 0) == kept_whole


@pytest.mark.parametrize(
    ("asked", "told"), [({"seeds": 0}, "seeds is 0"), ({"epochs": 0}, "epochs is 0")]
)
def test_nothing_to_do_is_told(tones_folder, asked, told):
    with pytest.raises(UsageError, match=told):
        reproduce(tones_folder, **asked)
