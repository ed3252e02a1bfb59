"""Whether the numbers of a result can be trusted, in sentences that each give their reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stapes import evaluation
from stapes.pages.wording import chance, count, known, percent, points, several, span

State = Literal["good", "doubt", "bad", "unknown"]

LOUDNESS, MAJORITY = "loudness only", "majority class"
"""The baselines that a model must beat to have learnt anything about the sound itself."""

WIDE_INTERVAL = 0.15
"""An interval wider than this tells little; it takes more recordings."""

GOOD_CALIBRATION = 0.05
GOOD_ACCEPTANCE = 0.05
"""The largest calibration error, and share of foreign sounds taken for a class, that pass."""

TELLING = 0.1
"""If chance makes more than this of either, there are too few recordings to tell."""

NEEDED_SOURCES = 10
"""Below this number of sources no interval is trusted to be narrow."""

MISSED, MOST_NAMED = 0.5, 6
"""A class of which less is found is missed; so many are named."""


CONCERNS = {
    "two labels": "under two labels",
    "train and test": "in both train and test",
    "two folds": "in two folds",
}
"""What the audit counts beside kinds of findings, in words."""


@dataclass(frozen=True, slots=True)
class Check:
    """One reason to trust a result, or not to.

    Attributes:
        state: how it turned out.
        title: in a few words.
        words: the finding with its numbers.
        anchor: of the section that shows it; "" if there is none.
    """

    state: State
    title: str
    words: str
    anchor: str = ""


def part(metrics: Mapping[str, Any] | None, *keys: str) -> Any:
    """What lies below some keys; an empty dict if any of it is absent or null.

    >>> part({"clips": {"n": 3}}, "clips", "n"), part({"clips": None}, "clips", "n")
    (3, {})
    """
    found: Any = metrics
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return {} if found is None else found


def beaten(baseline: Mapping[str, Any]) -> bool:
    """Whether the model is better than a baseline beyond chance."""
    return bool(part(baseline, "difference").get("beaten"))


def better(baseline: Mapping[str, Any]) -> bool:
    """Whether a baseline is better than the model beyond chance."""
    return sign(part(baseline, "difference")) < 0


def sign(difference: Mapping[str, Any]) -> int:
    """Of a difference beyond chance; 0 also where it was not measured."""
    measured = [*(difference.get("interval") or [None]), difference.get("p_value")]
    return evaluation.surely(difference) if all(map(known, measured)) else 0


def judged_baselines(metrics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The baselines that were compared with the model."""
    return [b for b in part(metrics, "baselines") or () if part(b, "difference")]


def alarm(metrics: Mapping[str, Any]) -> str:
    """What must be said in red: the model may do no more than a rule that hears nothing."""
    rules = {LOUDNESS: "loudness", MAJORITY: "always giving the most frequent class"}
    for baseline in judged_baselines(metrics):
        if baseline["name"] in rules and not beaten(baseline):
            than = "worse than" if better(baseline) else "not clearly better than"
            return (
                f"It is {than} {rules[baseline['name']]}, which gets {_theirs(baseline)} of clips;"
                f" this model gets {_ours(metrics)}. {_why(baseline)}"
            )
    return ""


def _ours(metrics: Mapping[str, Any]) -> str:
    return percent(part(metrics, "clips", "accuracy"))


def _theirs(baseline: Mapping[str, Any]) -> str:
    return percent(part(baseline, "clips", "accuracy"))


def _why(baseline: Mapping[str, Any]) -> str:
    """What may lie behind a rule that is not beaten."""
    if part(baseline, "difference").get("accuracy", 0.0) > 0:
        return "There may be too few recordings to show more."
    return "Whatever it learnt, it is not yet the sound."


def checks(metrics: Mapping[str, Any]) -> list[Check]:
    """The reasons to trust a result or not, in the order in which a reader asks for them."""
    judges = (_split, _size, _baselines, _classes, _calibration, _acceptance, _audit)
    found = (judge(metrics) for judge in judges)
    return [check for check in found if check is not None]


def _split(metrics: Mapping[str, Any]) -> Check | None:
    clips, naive = part(metrics, "clips"), part(metrics, "by_file", "clips", "accuracy")
    if metrics.get("leaks") == "allow":
        words = "Leaks were allowed: what was learnt and what is judged may share audio."
        return Check("bad", "The split may leak", words, "audit")
    if known(naive) and known(clips.get("accuracy")):
        words = (
            f"A split by file would have said {percent(naive)}; an honest one says"
            f" {percent(clips['accuracy'])}."
        )
        difference = part(metrics, "by_file", "difference")
        if sign(difference) > 0:
            words += f" The other {points(naive - clips['accuracy'])} would be memory, not skill."
        elif difference and not sign(difference):
            words += " The difference is within chance."
        return Check("good", "Honest split", words, "baselines")
    if known(clips.get("n_sources")) and clips.get("n"):
        words = f"{count(clips['n'], 'clip')} from {count(clips['n_sources'], 'source')};" + (
            " none of them is known to have been learnt from."
            if metrics.get("kind") == "evaluate"
            else " no source was both trained on and tested on."
        )
        state: State = "unknown" if metrics.get("kind") == "evaluate" else "good"
        return Check(state, "Honest split", words)
    return None


def _size(metrics: Mapping[str, Any]) -> Check | None:
    interval = part(metrics, "clips", "interval")
    if not interval or not all(map(known, interval)):
        return None
    wide, n_sources = interval[1] - interval[0], part(metrics, "clips", "n_sources")
    words = f"The interval is {points(wide)} wide ({span(interval)})"
    if wide > WIDE_INTERVAL or (known(n_sources) and n_sources < NEEDED_SOURCES):
        return Check("doubt", "Too few recordings", words + ": more sources would narrow it.")
    return Check("good", "Enough recordings", words + ".")


def _baselines(metrics: Mapping[str, Any]) -> Check | None:
    baselines = judged_baselines(metrics)
    if not baselines:
        return None
    ahead = [b for b in baselines if better(b)]
    unclear = [b for b in baselines if not beaten(b) and not better(b)]
    worse = f"Worse than {several(list(map(_named, ahead)))}. " if ahead else ""
    level = f"Not clearly better than {several(list(map(_named, unclear)))}." if unclear else ""
    if ahead:
        return Check("bad", "A simple rule does better", (worse + level).strip(), "baselines")
    if unclear:
        blind = {LOUDNESS, MAJORITY} & {b["name"] for b in unclear}
        state: State = "bad" if blind else "doubt"
        return Check(state, "Not shown to beat every simple rule", level, "baselines")
    closest = min(baselines, key=lambda b: part(b, "difference").get("accuracy", 0.0))
    behind, p_value = (closest["difference"].get(key) for key in ("accuracy", "p_value"))
    words = (
        f"Better than {'all ' if len(baselines) > 1 else ''}{count(len(baselines), 'simple rule')};"
        f" the closest, {closest['name']}, is {points(behind)} behind"
        f"{_in_brackets(chance(p_value))}."
    )
    return Check("good", "Beats simple rules", words, "baselines")


def _named(baseline: Mapping[str, Any]) -> str:
    return f"{baseline['name']} ({_theirs(baseline)})"


def _in_brackets(words: str) -> str:
    return f" ({words})" if words else ""


def _classes(metrics: Mapping[str, Any]) -> Check | None:
    recall = {k: v for k, v in part(metrics, "clips", "recall").items() if known(v)}
    if len(recall) < 2:
        return None
    ranked = sorted(recall, key=lambda label: recall[label])
    missed = [label for label in ranked if recall[label] < MISSED]
    if missed:
        which = f"{len(missed)} of {len(recall)} classes are"
        shown = [f"{label} {percent(recall[label], 0)}" for label in missed[:MOST_NAMED]]
        more = [f"{len(missed) - MOST_NAMED} more"] if len(missed) > MOST_NAMED else []
        words = f"{which} found less than half the time: {several(shown + more)}."
        title = "A class is missed" if len(missed) == 1 else "Classes are missed"
        return Check("doubt", title, words, "mistaken")
    worst = ranked[0]
    words = f"The class found least is {worst}: {percent(recall[worst], 0)} of its clips."
    return Check("good", "Finds every class", words, "mistaken")


def _calibration(metrics: Mapping[str, Any]) -> Check | None:
    calibration = part(metrics, "calibration")
    error = calibration.get("error_after")
    if not known(error):
        return None
    words = f"Stated probabilities are off by {points(error)} on average"
    chance_alone = calibration.get("error_by_chance")
    words += f"; chance alone makes up to {points(chance_alone)}" if known(chance_alone) else ""
    words = f"{words}. {when_it_says(calibration.get('after') or ())}".strip()
    limit = max(GOOD_CALIBRATION, chance_alone if known(chance_alone) else 0.0)
    if error > limit:
        return Check("doubt", "Probabilities are off", words, "calibration")
    if error > GOOD_CALIBRATION or (known(chance_alone) and chance_alone > TELLING):
        title = "Too few clips to tell what probabilities are worth"
        return Check("unknown", title, words, "calibration")
    return Check("good", "Probabilities mean what they say", words, "calibration")


def when_it_says(bins: Sequence[Mapping[str, Any]]) -> str:
    """What a stated probability is worth, from the bin around 90 %, or the fullest."""
    filled = [b for b in bins if b.get("n") and known(b.get("accuracy"))]
    if not filled:
        return ""
    around = [b for b in filled if b["low"] <= 0.9 < b["high"] and b["n"] >= 10]
    chosen = around[0] if around else max(filled, key=lambda b: b["n"])
    return (
        f"When it says {percent(chosen['confidence'], 0)}, it is right"
        f" {percent(chosen['accuracy'], 0)} of the time ({count(chosen['n'], 'clip')})."
    )


def _acceptance(metrics: Mapping[str, Any]) -> Check | None:
    acceptance, foreign = part(metrics, "acceptance"), part(metrics, "acceptance", "foreign")
    if not acceptance:
        return None
    let_in = foreign.get("called_after")
    if not known(let_in):
        words = "Sounds that are none of the classes were not tried; it may take them for one."
        return Check("unknown", "Foreign sounds", words)
    words = (
        f"{percent(let_in)} of {count(foreign.get('n'), 'foreign sound')} are taken for a class;"
        f" without thresholds, {percent(foreign.get('called_before'), 0)}. The price:"
        f" {percent(least_covered(acceptance), 0)} of its own sounds are kept."
    )
    if let_in > GOOD_ACCEPTANCE:
        return Check("doubt", "Takes foreign sounds for its own", words, "acceptance")
    high = (foreign.get("interval") or [None])[-1]
    if known(high) and high > TELLING:
        words += f" With so few, it may be up to {percent(high, 0)}."
        return Check("unknown", "Too few foreign sounds to tell", words, "acceptance")
    return Check("good", "Knows what it does not know", words, "acceptance")


def least_covered(acceptance: Mapping[str, Any]) -> float | None:
    """The share kept of the class of which least is; the stated one if none was measured."""
    shares = [share for share in part(acceptance, "covered").values() if known(share)]
    return min(shares, default=acceptance.get("coverage"))


def _audit(metrics: Mapping[str, Any]) -> Check | None:
    audit = part(metrics, "audit")
    if not audit:
        return None
    held = f"{count(audit.get('n_files'), 'file')} from {count(audit.get('n_sources'), 'source')}"
    found = {kind: n for kind, n in part(audit, "counts").items() if n}
    if not found:
        return Check("good", "Clean recordings", f"{held}; no copies and no overlaps.", "audit")
    words = f"{held}. Found: {several(found_by_audit(metrics))}."
    if "two labels" in found:
        return Check("doubt", "The same audio under two labels", words, "audit")
    if CONCERNS.keys() & found:
        together = metrics.get("leaks") != "allow"
        words += " Here, what shares audio stayed together." if together else ""
        return Check("doubt", "The split that came with the data leaks", words, "audit")
    return Check("good", "Recordings were audited", words, "audit")


def found_by_audit(metrics: Mapping[str, Any]) -> list[str]:
    """How often the audit found what.

    >>> found_by_audit({"audit": {"counts": {"overlap": 1200, "two folds": 3, "copy": 0}}})
    ['1,200 × overlap', '3 × in two folds']
    """
    found = part(metrics, "audit", "counts").items()
    return [f"{n:,} × {CONCERNS.get(kind, kind)}" for kind, n in found if n]
