"""Results -> one HTML page that shows whether they can be trusted. Computes nothing."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from stapes.inspection import ClipExplanation
from stapes.pages import cards, layer_cards, result_charts, verdict, wording
from stapes.pages.cards import Recording
from stapes.pages.confusions import confusion
from stapes.pages.rendering import render
from stapes.profile import MEASURES

MAX_FINDINGS = 20
"""Findings of the audit that are listed."""


def render_report(
    metrics: Mapping[str, Any],
    *,
    title: str,
    history: Sequence[Mapping[str, Any]] = (),
    recording: Recording | None = None,
    explanations: Mapping[str, ClipExplanation] | None = None,
    sample_rate: int = 16_000,
) -> str:
    """The page of a result: how good it is, whether that can be trusted, and where it is wrong.

    Whatever the metrics do not hold, the page leaves out.

    Args:
        metrics: what metrics.json holds.
        title: of the page.
        history: rows of history.jsonl.
        recording: the waveform [T] of a clip by its name, None where it cannot be had; asked
            once for each clip that is played or drawn.
        explanations: of one recording of each class.
        sample_rate: of the waveforms, in Hz.
    """
    values = _measured(metrics) | _heard(metrics, cache(recording or _nothing), sample_rate)
    best = metrics.get("best_epoch")
    curves = [result_charts.learning(history, name, best) for name in ("loss", "accuracy")]
    values["learning"] = [curve for curve in curves if curve]
    values["tried"] = any("validation_loss" in row for row in history)
    values["stacks"] = layer_cards.stacks(explanations)
    return render("report.html", metrics=metrics, title=title, sample_rate=sample_rate, **values)


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of the numbers."""
    sections = {
        "baselines": result_charts.comparison(metrics),
        "mistaken": confusion(metrics),
        "calibration": result_charts.reliability(metrics),
        "acceptance": metrics.get("acceptance"),
        "audit": metrics.get("audit"),
    }
    return {
        "alarm": verdict.alarm(metrics),
        "checks": verdict.checks(metrics),
        "anchors": {name for name, content in sections.items() if content},
        "comparison": sections["baselines"],
        "confusion": sections["mistaken"],
        "roc": result_charts.roc(metrics),
        "reliability": sections["calibration"],
        "bins": result_charts.bins(metrics),
        "worth": verdict.when_it_says(verdict.part(metrics, "calibration", "after") or ()),
        "acceptance": result_charts.acceptance(metrics),
        "foreign_rows": _foreign_rows(metrics),
        "folds": result_charts.repeats(metrics, "folds", "fold"),
        "seeds": result_charts.repeats(metrics, "seeds", "seed"),
        "made": _made(metrics),
        "profile": _profile(metrics),
        "found": verdict.found_by_audit(metrics),
    }


def _heard(metrics: Mapping[str, Any], read: Recording, sample_rate: int) -> dict[str, Any]:
    """What the page plays and draws of recordings."""
    wrong = cards.mistakes(metrics, read, sample_rate=sample_rate)
    return {
        "mistakes": wrong,
        "suspicions": cards.suspicions(metrics, read, sample_rate=sample_rate, shown=wrong),
        "pairs": cards.pairs(metrics, read, sample_rate=sample_rate),
        "examples": cards.examples(metrics, read, sample_rate=sample_rate),
        "played_seconds": cards.PLAYED_SECONDS,
        "most_findings": MAX_FINDINGS,
    }


def _foreign_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Labels of foreign sounds, those first that are taken for a class most often."""
    found = verdict.part(metrics, "acceptance", "foreign", "by_label").items()
    return sorted(found, key=lambda row: -(row[1].get("called_after") or 0))


def _profile(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the training recordings were like: three quantiles of each measure, and the rest."""
    found = verdict.part(metrics, "profile")
    if not found:
        return None
    words = {key: wording.named(key) for key in found}
    ranges = {key: v for key, v in found.items() if isinstance(v, list) and key in MEASURES}
    return {
        "facts": {words[k]: wording.plain(v, k) for k, v in found.items() if k not in ranges},
        "ranges": {words[k]: [wording.plain(q, k) for q in v] for k, v in ranges.items()},
    }


def _made(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """How the result came about: what is not a measurement."""
    keys = ("data", "preset", "best_epoch", "version")
    return {key: metrics[key] for key in keys if metrics.get(key) is not None} | dict(
        verdict.part(metrics, "settings")
    )


def _nothing(_name: str) -> None:
    """No recording is at hand."""
