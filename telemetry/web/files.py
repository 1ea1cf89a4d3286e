"""The files of the pages as they travel: read, compressed and named once, when a server begins.

What a page loads has a digest of all of it in its address. So a browser asks for it once and keeps it for good, and
never mixes the files of two versions.
"""

import hashlib
import json
import mimetypes
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from telemetry.web.answers import Answer

_FOR_GOOD: Final = {"Cache-Control": "private, max-age=31536000, immutable"}


class Files:
    """What `dashboards/` holds: pages and what they load, and the descriptions that a page draws."""

    def __init__(self, folder: Path, describe: Callable[[str], Mapping[str, Any]]) -> None:
        """
        Args:
            describe: what a page must know of a report that it names.
        """
        static = folder / "static"
        bodies = {str(path.relative_to(static)): path.read_bytes() for path in static.rglob("*") if path.is_file()}
        digest = hashlib.sha256(repr(sorted(bodies.items())).encode())
        self.root = f"/static/{digest.hexdigest()[:12]}/"
        """Where the addresses of the present version begin."""
        self._loaded = {name: Answer(body, _type_of(name), _FOR_GOOD) for name, body in bodies.items()}
        self._pages = {path.stem: self._page(path) for path in folder.glob("*.html")}
        self._described = {path.stem: _description(path, describe) for path in folder.glob("*.toml")}

    def page(self, name: str, request: Request) -> Response:
        """The HTML of a page."""
        return self._pages[name].response(request)

    async def loaded(self, request: Request) -> Response:
        """What a page loads; another version's address leads to the present one's."""
        name = request.path_params["name"]
        if name not in self._loaded:
            raise HTTPException(404, f"the pages have no file {name!r}")
        if request.url.path != self.root + name:
            return RedirectResponse(self.root + name)
        return self._loaded[name].response(request)

    async def described(self, request: Request) -> Response:
        """What a page shows, and the reports behind it: one answer holds all that it must know before it asks them."""
        name = request.path_params["name"]
        if name not in self._described:
            raise HTTPException(404, f"there is no page {name!r}")
        return self._described[name].response(request)

    def _page(self, path: Path) -> Answer:
        return Answer(path.read_text("utf-8").replace("/static/", self.root).encode(), _type_of(path.name))


def _description(path: Path, describe: Callable[[str], Mapping[str, Any]]) -> Answer:
    page = tomllib.loads(path.read_text("utf-8"))
    names = dict.fromkeys(panel["report"] for panel in page["panels"])
    body = json.dumps({**page, "reports": [describe(name) for name in names]}, ensure_ascii=False)
    return Answer(body.encode(), "application/json")


def _type_of(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "text/plain"
