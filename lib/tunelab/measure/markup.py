"""HTML and SVG from templates. A template escapes every value it is given, once; nothing is escaped by hand.

Templates stand in the folder `templates` of the package that fills them in; what several have in common is in this
package's own (`shared.html`). What `render` returns is `Markup`: another template takes it as it is, and any other text
it escapes.
"""

from __future__ import annotations

from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(package: str, template: str, **values: object) -> Markup:
    """The template of that name in the folder `templates` of `package`, filled in with `values`."""
    return Markup(_environment(package).get_template(template).render(values))


@cache
def _environment(package: str) -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        undefined=StrictUndefined,  # a name that nobody gives is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
    )
