"""Turns formulas into MathML while the site is built, so that readers need no script and no network for them."""

import html
import re

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.+?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.+?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Replace what the extension arithmatex has marked."""
    content = _BLOCK.sub(lambda found: _formula(found[1], display="block"), content)
    return _INLINE.sub(lambda found: _formula(found[1], display="inline"), content)


def _formula(latex: str, *, display: str) -> str:
    return str(convert(html.unescape(latex).strip(), display=display))
