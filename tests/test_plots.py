import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb

from stapes import clip_plots, colours, drawing, inspection, plots
from stapes.config import ModelConfig
from stapes.engine import FoldedNetwork

LONG_NAMES = (
    "cat",
    "dog",
    "Pipistrellus pipistrellus (social call)",
    "$5 <b>bold</b> $x$",
    "chainsaw",
    "clock_tick",
    "crackling fire",
    "a name of several\nlines \udcff",
    "helicopter",
    "a very, very long name of a class with many spaces indeed",
)
WIDTHS = (drawing.WIDE, drawing.NARROW)


def make_network(classes, *, n_filters=10, seed=0):
    config = ModelConfig(classes, n_layers=5, n_filters=n_filters, segment_length=4000)
    rng = np.random.default_rng(seed)

    def draw(*shape, scale):
        return rng.normal(0, scale, shape).astype(np.float32)

    widths = [1, *[n_filters] * config.n_layers]
    return FoldedNetwork(
        config,
        tuple(draw(3, c, n_filters, scale=(2 / (3 * c)) ** 0.5) for c in widths[:-1]),
        tuple(draw(n_filters, scale=0.1) for _ in range(config.n_layers)),
        draw(config.n_outputs, n_filters, scale=1.0),
        draw(config.n_outputs, scale=1.0),
    )


def make_explanation(classes=("cat", "dog"), *, n_samples=14_000, **settings):
    rng = np.random.default_rng(1)
    loudness = np.interp(np.linspace(0, 1, n_samples), [0.6, 0.8, 1], [0.02, 0.5, 0.3])
    clip = (loudness * rng.uniform(-1, 1, n_samples)).astype(np.float32)
    network = make_network(classes, **settings)
    raw = 2 * network.kernels[0].transpose(2, 1, 0)
    return inspection.explain_waveform(network, clip, raw_kernels=raw)


def example_figure(classes, width):
    clip = np.sin(np.arange(5000) / 9).astype(np.float32)
    examples = dict.fromkeys(classes, [(classes[0], clip)] * 4)
    return plots.plot_examples(examples, sample_rate=16_000, width=width)


def clip_figures(explanation, width):
    return [
        clip_plots.plot_strip(explanation, width=width),
        clip_plots.plot_layers(explanation, width=width),
        clip_plots.plot_contributions(explanation, width=width),
        clip_plots.plot_filters(explanation.first_layer, width=width),
    ]


def boxes(figure):
    """What every visible piece of text covers, in points."""
    texts = {text for text in figure.findobj(mpl.text.Text) if text.get_visible()}
    renderer = FigureCanvasAgg(figure).get_renderer()
    hidden = {t for axes in figure.axes if not axes.get_visible() for t in axes.findobj()}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            span = 1e-6 * (high - low)
            for tick in axis.get_major_ticks():
                shown = low - span <= tick.get_loc() <= high + span
                hidden |= set() if shown else {tick.label1, tick.label2}
    kept = sorted((t for t in texts - hidden if t.get_text().strip()), key=lambda t: t.get_text())
    return [(t.get_text(), t.get_window_extent(renderer)) for t in kept]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("classes", [LONG_NAMES[-1:-4:-2], LONG_NAMES], ids=["two", "ten"])
def test_no_text_leaves_a_figure_or_covers_other_text(classes, width):
    explanation = make_explanation(classes)
    for figure in [example_figure(classes, width), *clip_figures(explanation, width)]:
        found = boxes(figure)
        assert len(found) > 4
        for text, box in found:
            inside = figure.bbox.padded(1.5)
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1, text
            assert inside.y0 <= box.y0 and box.y1 <= inside.y1, text
        for (first, a), (second, b) in combinations(found, 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            down = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 2 or down < 4, (first, second, across, down)


def test_the_waterfall_goes_from_the_bias_to_the_logit():
    explanation = make_explanation()
    heard, weights, added = clip_plots.plot_contributions(explanation).axes
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in added.patches]
    assert bars[0] == (0, pytest.approx(explanation.head_bias[0]))
    for (_, end), (begin, _) in pairwise(bars[:-1]):
        assert begin == pytest.approx(end)
    logit = explanation.segment.logits[0]
    assert bars[-2][1] == pytest.approx(logit)
    assert bars[-1] == (0, pytest.approx(logit))
    np.testing.assert_allclose([b.get_width() for b in heard.patches], explanation.segment.pooled)
    np.testing.assert_allclose([b.get_width() for b in weights.patches], explanation.head_weight[0])


def test_of_a_large_network_the_strongest_filters_are_shown_and_the_sum_stays():
    explanation = make_explanation(n_filters=40)
    heard, _, added = clip_plots.plot_contributions(explanation).axes
    assert len(heard.patches) == clip_plots.MAX_ROWS
    assert len(added.patches) == 1 + clip_plots.MAX_ROWS + 1 + 1  # bias, filters, others, sum
    last_step = added.patches[-2]
    logit = explanation.segment.logits[0]
    assert last_step.get_x() + last_step.get_width() == pytest.approx(logit)


def test_the_strip_points_and_colours_by_the_sign_of_the_evidence():
    explanation = make_explanation()
    upper, lower = clip_plots.plot_strip(explanation).axes
    line = explanation.timeline
    down, up = lower.patches[:2]
    assert (down.get_data().values <= 0).all() and (up.get_data().values >= 0).all()
    drawn = down.get_data().values + up.get_data().values
    np.testing.assert_allclose(drawn, np.nan_to_num(line.evidence[0]))
    found = [to_hex(patch.get_facecolor()) for patch in (down, up)]
    assert found == [colours.class_colour(0), colours.class_colour(1)]
    edges = up.get_data().edges
    np.testing.assert_allclose((edges[1:] + edges[:-1]) / 2, line.times_seconds)
    (image,) = upper.images
    np.testing.assert_array_equal(image.get_array()[0, :, 3] > 0, line.shares > 0)


def test_hatched_stretches_are_those_in_no_voting_segment():
    explanation = make_explanation()
    line = explanation.timeline
    lower = clip_plots.plot_strip(explanation).axes[1]
    (hatched,) = lower.patches[2:]
    half = line.step_seconds / 2
    silent = line.times_seconds[line.shares == 0]
    assert hatched.get_x() == pytest.approx(silent[0] - half)
    assert hatched.get_x() + hatched.get_width() == pytest.approx(silent[-1] + half)


def test_every_layer_is_drawn_at_its_time():
    explanation = make_explanation()
    figure = clip_plots.plot_layers(explanation)
    assert len(figure.axes) == 5 + 2
    for axes, times in zip(figure.axes[1:-1], explanation.segment.times_seconds[1:], strict=True):
        (image,) = axes.images
        left, _, bottom, top = image.get_extent()
        assert left == pytest.approx(times[0] - (times[1] - times[0]) / 2)
        assert (bottom, top) == (10.5, 0.5)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_figures_change_no_global_settings():
    names = set(mpl.rcParams) - {"backend"}  # asking for the backend chooses one
    before = {name: mpl.rcParams[name] for name in names}
    drawing.as_svg(example_figure(("cat", "dog"), drawing.WIDE), name="x")
    assert {name: mpl.rcParams[name] for name in names} == before


def test_saved_figures_are_whole_and_the_same_every_time(tmp_path):
    explanation = make_explanation(LONG_NAMES)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        figure = clip_plots.plot_strip(explanation)
        saved = drawing.save_figure(figure, tmp_path / folder / "strip v1.2")
        assert [p.name for p in saved] == ["strip v1.2.png", "strip v1.2.svg"]
    names = ["strip v1.2.png", "strip v1.2.svg"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == names
    for name in names:
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / names[0]).read_bytes().startswith(b"\x89PNG")
    assert ElementTree.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in first


def test_svg_for_a_page_takes_the_pages_colours_and_keeps_its_ids_to_itself():
    explanation = make_explanation(LONG_NAMES)
    drawn = drawing.as_svg(clip_plots.plot_strip(explanation), name="strip")
    root = ElementTree.fromstring(drawn)
    ids = {e.get("id") for e in root.iter() if e.get("id")}
    assert len(ids) > 20 and all(i.startswith("strip-") for i in ids)
    wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', drawn))
    assert wanted and wanted <= ids
    assert "var(--ink)" in drawn and "var(--muted)" in drawn
    for colour in (colours.INK, colours.MUTED, colours.LINE, colours.PAPER):
        assert colour not in drawn
    assert "$5 &lt;b&gt;bold" in drawn


def linear(colour):
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(first, second):
    """Of WCAG 2: (brighter + 0.05) / (darker + 0.05) in relative luminance."""
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (first, second))
    return (high + 0.05) / (low + 0.05)


def page_colours(name):
    style = (Path(drawing.__file__).parent / "pages/templates/style.css").read_text()
    return re.findall(rf"--{name}: (#\w{{6}})", style)[:2]  # light, dark


def test_colours_stand_out_on_light_and_dark_pages():
    papers = page_colours("paper")
    assert papers[0] == colours.PAPER != papers[1]
    for paper in papers:
        for colour in (*colours.CLASS_COLOURS, colours.ACCENT):
            assert contrast(colour, paper) >= 3, (colour, paper)
    for name, least in (("ink", 7), ("muted", 4.5)):
        for text, paper in zip(page_colours(name), papers, strict=True):
            assert contrast(text, paper) >= least


@pytest.mark.parametrize(
    "weights",  # red and green receptors that respond alike (Vienot et al. 1999), blue apart
    [[0.1124, 0.8876, 0.0], [0.2929, 0.7071, 0.0]],
    ids=["protanopia", "deuteranopia"],
)
def test_the_two_sides_differ_for_colour_blind_eyes(weights):
    first, second = (linear(c) for c in colours.CLASS_COLOURS[:2])
    yellow = [c @ weights for c in (first, second)]
    blue = first[2] - yellow[0], second[2] - yellow[1]
    assert blue[0] > 0.2 and blue[1] < -0.15  # one bluish, one yellowish


def test_printable_keeps_both_ends_and_drops_what_cannot_be_drawn():
    assert drawing.printable("a\nb\t\x00c \udcff") == "a b c ?"
    assert drawing.printable("x" * 30 + "end", limit=12) == "xxxxxx…xxend"
    assert drawing.printable("short") == "short"
