"""Values -> one HTML page that needs no network and no scripts, with ``templates/``."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stapes import __version__
from stapes.pages import wording


def render(template: str, **values: Any) -> str:
    """Fill a template; whatever a value holds, it stays text and never becomes markup."""
    environment = Environment(
        loader=PackageLoader("stapes.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "named", "percent", "plain", "several", "span"):
        environment.filters[name] = getattr(wording, name)
    environment.tests["known"] = wording.known
    page = environment.get_template(template).render(version=__version__, **values)
    return page.encode("utf-8", "replace").decode()  # names may hold what UTF-8 cannot
