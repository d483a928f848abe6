"""The page and what it is made of: files of this package, read once, that ask for nothing from elsewhere."""

from importlib import resources
from typing import Final

KINDS: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
PAGE: Final = "page.html"
NAMES: Final = ("page.css", "icon.svg", "page.js", "element.js", "results.js", "heatmap.js", "card.js")
#: Address → the file there.
FILES: Final = {"/": PAGE, **{f"/static/{name}": name for name in NAMES}}


def read_page(name: str) -> tuple[bytes, str]:
    """Return the content of one of the page's files, and its media type.

    >>> read_page("page.js")[1]
    'text/javascript; charset=utf-8'
    """
    content = (resources.files("tailbind.server") / "static" / name).read_bytes()
    return content, KINDS[name.rsplit(".", 1)[1]]
