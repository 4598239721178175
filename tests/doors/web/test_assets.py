"""Files come under names that tell their content, for ever; nothing else comes; what others made is as they made it."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files

import pytest

from journeyman.doors.web.templates import COMMON, COMMON_ASSETS
from tests.doors.http.shop import problem, shop

STATIC = files(COMMON) / "static"

#: As published: npm pack htmx.org@2.0.11, dist/htmx.min.js; npm pack htmx-ext-sse@2.2.4, dist/sse.min.js.
VENDORED = {
    "htmx-2.0.11.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "htmx-sse-2.2.4.min.js": "98a46496de0c3605fbffdce9167ba427bdd9553184f83f149c261891a92c0136",
}


@pytest.mark.parametrize("file", VENDORED)
def test_a_vendored_file_is_the_published_one(file: str) -> None:
    content = (STATIC / file).read_bytes()
    assert sha256(content).hexdigest() == VENDORED[file]
    assert file in (STATIC / "LICENSES.txt").read_text()
    version = re.search(r'version:"([\d.]+)"', content.decode())
    assert version is None or version[1] in file


def test_every_script_is_vendored() -> None:
    assert {file.name for file in STATIC.iterdir() if file.name.endswith(".js")} == set(VENDORED)


@pytest.mark.parametrize("file", [file.name for file in STATIC.iterdir()])
async def test_a_file_is_kept_for_a_year_under_the_name_of_its_content(file: str) -> None:
    content = (STATIC / file).read_bytes()
    path = COMMON_ASSETS.path(file)
    async with shop() as client:
        answer = await client.get(path)

    assert sha256(content).hexdigest()[:12] in path
    assert answer.content == content
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].split(";")[0] in {
        "text/css",
        "text/javascript",
        "text/plain",
        "image/svg+xml",
    }


@pytest.mark.parametrize(
    "name",
    ["site.css", "site-000000000000.css", "..%2fassets.py", "%2e%2e%2f%2e%2e%2fassets.py", "", "a/b", "site.css%00"],
)
async def test_no_other_path_leads_to_a_file(name: str) -> None:
    async with shop() as client:
        problem(await client.get(f"/assets/{name}"), 404, "unknown-path")


def test_the_stylesheet_asks_for_nothing_from_elsewhere() -> None:
    style = (STATIC / "site.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
