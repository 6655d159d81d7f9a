"""What the charts of a page show, counted."""

import re
import xml.etree.ElementTree as ET

_SVG = "{http://www.w3.org/2000/svg}"


def marks(page: str) -> dict[str, int]:
    """Of each named group in the page's SVGs: the points in it, or its lines and bars if none."""
    found: dict[str, int] = {}
    for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        for group in ET.fromstring(text).iter(f"{_SVG}g"):
            points = sum(1 for _ in group.iter(f"{_SVG}use"))
            if name := group.get("id"):
                found[name] = points or sum(1 for _ in group.iter(f"{_SVG}path"))
    return found


def words(page: str) -> list[str]:
    """All that is written in the page's SVGs, piece by piece."""
    return [
        "".join(text.itertext())
        for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)
        for text in ET.fromstring(svg).iter(f"{_SVG}text")
    ]
