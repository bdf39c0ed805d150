"""The frame of every page: style, content policy, and scripts, without anything loaded from elsewhere."""

import base64
import hashlib
import html
import json
from functools import cache
from importlib.resources import files
from typing import Any

STYLE = (files("controller.plots") / "assets" / "style.css").read_text(encoding="utf-8")
_SCRIPTS = ("chart", "scatter", "policy", "volume", "start")

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Of pages without scripts. Every connection is forbidden: a mistake in escaping could not send anything out."""


def page(*, title: str, body: str, data: dict[str, Any]) -> str:
    """Put the page of a study together.

    Args:
        title: Plain text.
        body: HTML, escaped by its maker.
        data: What the script draws; plain JSON. The script makes text of it, never elements.

    Returns:
        A whole HTML document that needs no network. It runs this one script and no other, whatever is in its text.
    """
    script = _script()
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}; '
        f"script-src 'sha256-{allowed}'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f'<script type="application/json" id="data">{script_json(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


@cache
def _script() -> str:
    folder = files("controller.plots") / "assets"
    parts = "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    return f'\n"use strict";\n(() => {{\n{parts}}})();\n'


def script_json(data: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
