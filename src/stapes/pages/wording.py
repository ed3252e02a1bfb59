"""Numbers in words for people; a number that is not there says "not measured"."""

import math
from typing import Any, TypeGuard

NOT_MEASURED = "not measured"
MINUS, SPACE = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


def known(value: Any) -> TypeGuard[float]:
    """Whether something is a number that was measured: neither absent nor nan.

    >>> known(0), known(None), known(float("nan"))
    (True, False, False)
    """
    return isinstance(value, int | float) and math.isfinite(value)


def percent(share: Any, digits: int = 1) -> str:
    """A share from 0 to 1 in percent."""
    if not known(share):
        return NOT_MEASURED
    return f"{100 * share:.{digits}f}{SPACE}%".replace("-", MINUS)


def span(interval: Any, digits: int = 0) -> str:
    """An interval of shares in percent.

    >>> span([0.913, 0.984]).replace(SPACE, " ")
    '91 to 98 %'
    """
    if not interval or not all(map(known, interval)):
        return NOT_MEASURED
    ends = (round(100 * end, digits) + 0.0 for end in interval)  # no minus before zero
    low, high = (f"{end:.{digits}f}".replace("-", MINUS) for end in ends)
    return f"{low} to{SPACE}{high}{SPACE}%"


def points(difference: Any) -> str:
    """A difference of shares in percentage points, without its sign."""
    if not known(difference):
        return NOT_MEASURED
    value = f"{100 * abs(difference):.1f}"
    return f"{value}{SPACE}point{'' if value == '1.0' else 's'}"


def count(number: Any, singular: str, plural: str = "") -> str:
    """How many of something.

    >>> count(1, "clip"), count(1200, "clip"), count(2, "class", "classes")
    ('1 clip', '1,200 clips', '2 classes')
    """
    if not known(number):
        return f"an unknown number of {plural or singular + 's'}"
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def chance(p_value: Any) -> str:
    """A p-value, as exactly as it deserves."""
    if not known(p_value):
        return ""
    return f"p{SPACE}<{SPACE}0.001" if p_value < 0.001 else f"p{SPACE}={SPACE}{p_value:.2g}"


def several(names: list[str]) -> str:
    """Names in a sentence.

    >>> several(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plain(value: Any, key: str = "") -> str:
    """Any value of a table of settings, with the unit that the end of its key names.

    >>> plain(16000, "sample_rate_hz").replace(SPACE, " "), plain([0.01, 2]), plain(True)
    ('16,000 Hz', '0.01, 2', 'yes')
    """
    unit = next((u for ending, u in _UNITS.items() if key.endswith(ending)), "")
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}{unit}".replace("-", MINUS)
    if isinstance(value, float) and not known(value):
        return NOT_MEASURED
    if isinstance(value, float) and key.endswith("_share"):
        return percent(value, 2)
    if isinstance(value, float):
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        number = f"{round(value, 1) + 0.0:.1f}" if key.endswith("_db") else number
        return f"{number}{unit}".replace("-", MINUS)
    if isinstance(value, list | tuple):
        return ", ".join(plain(part, key) for part in value)
    return str(value)


def named(key: str) -> str:
    """A key as words, without the unit at its end.

    >>> named("bandwidth_hz"), named("n_recordings"), named("clipped_share")
    ('bandwidth', 'recordings', 'clipped share')
    """
    ending = next((e for e in _UNITS if e.startswith("_") and key.endswith(e)), "")
    return key.removesuffix(ending).removeprefix("n_").replace("_", " ")


_UNITS = {
    "_hz": f"{SPACE}Hz",
    "_db": f"{SPACE}dB",
    "_seconds": f"{SPACE}s",
    "_ms": f"{SPACE}ms",
    "sample_rate": f"{SPACE}Hz",
}
