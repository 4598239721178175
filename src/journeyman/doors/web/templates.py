"""Pages from templates. Everything that a template is given is text, until it says that it is markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from litestar import Request

from journeyman.doors.web.access import access_of
from journeyman.doors.web.answers import Page
from journeyman.doors.web.asgi import MOUNTED_AT, Scope
from journeyman.doors.web.assets import Assets
from journeyman.doors.web.text import moment, paragraphs, visible

#: The package of the layout, the macros, the stylesheet and the scripts that all pages share.
COMMON: Final = __name__.rpartition(".")[0]

#: The shared files, served once for the whole site.
COMMON_ASSETS: Final = Assets(COMMON)


class Templates:
    """The templates of a package, in its folder `templates`, and those that all share, as `journeyman/…`.

    Besides what a page gives them they have: `access` (who asks), `url(path, **values)` and `asset(file)` for links
    that hold wherever the site is mounted, and the filters `visible`, `paragraphs` and `moment`.

    Args:
        package: the package's name.
        path: where its routes are, if it has files of its own in `static`: see `assets`.
        filters: more filters, by name.
    """

    def __init__(self, package: str, *, path: str = "", filters: Mapping[str, Callable[..., object]] = {}) -> None:
        self.assets = Assets(package, path=path)
        self._environment = Environment(
            loader=_loader(package),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"visible": visible, "paragraphs": paragraphs, "moment": moment, **filters}

    def page(self, request: Request[Any, Any, Any], name: str, *, status: int = 200, **values: Any) -> Page:
        """The answer to a request."""
        return Page(self.render(request.scope, name, **values), status=status)

    def render(self, scope: Mapping[str, Any], name: str, **values: Any) -> str:
        """HTML for whoever asks: a page, or a part of one to send later."""
        html: str = self._environment.get_template(name).render(**self._given(scope), **values)
        return html

    def _given(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        prefix: str = scope.get(MOUNTED_AT, "")

        def url(path: str, **given: object) -> str:
            query = urlencode({name: value for name, value in given.items() if value is not None}, doseq=True)
            return f"{prefix}{path}?{query}" if query else f"{prefix}{path}"

        def asset(file: str) -> str:
            return prefix + (self.assets if file in self.assets else COMMON_ASSETS).path(file)

        return {"access": access_of(scope), "path": scope["path"], "url": url, "asset": asset}


def _loader(package: str) -> BaseLoader:
    common = PrefixLoader({"journeyman": PackageLoader(COMMON)})
    return common if package == COMMON else ChoiceLoader([common, PackageLoader(package)])


def wants_page(scope: Scope) -> bool:
    """Whether a browser asks, to show the answer: programs say that they take JSON, or anything."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
