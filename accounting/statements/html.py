"""A privacy statement as one HTML page that opens offline.

The page holds its style and its pictures, needs no script, and tells the browser to load
nothing (Content-Security-Policy). Every text of a user is escaped.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dpfc.accounting.statements.pictures import epsilon_picture, trade_off_picture
from dpfc.accounting.statements.wording import content

if TYPE_CHECKING:
    from dpfc.accounting.statements.statement import PrivacyStatement

__all__ = ["render_html"]

_CAPTIONS: Final = {
    "epsilon": "ε(δ): all points of the curve hold at once. The dot is the target. δ is "
    "logarithmic.",
    "trade-off": "Trade-off curve: no attack reaches a point above it. The dashed line is blind "
    "guessing. Both rates are logarithmic.",
}


def render_html(statement: PrivacyStatement) -> str:
    """Render everything that `content` says, and the two curves of the guarantee as SVG."""
    profile = statement.profile()
    target = statement.target_epsilon, statement.target_delta
    pictures = {
        "epsilon": epsilon_picture(profile, *target, name="epsilon"),
        "trade-off": trade_off_picture(profile, name="trade-off"),
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("dpfc.accounting.statements").joinpath("privacy-statement.html")
    return environment.from_string(source.read_text(encoding="utf-8")).render(
        said=content(statement),
        # Drawn by us from numbers alone: nothing in it needs escaping.
        pictures={name: (Markup(svg), _CAPTIONS[name]) for name, svg in pictures.items()},
    )
