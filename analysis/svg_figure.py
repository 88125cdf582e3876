"""A matplotlib figure as SVG for a page: inline, themed by CSS, the same bytes for the same data.

Ink, muted ink and the series colours are drawn in fixed colours and replaced by `currentColor`
and CSS variables (with the drawn colour as fallback), so that one drawing serves light and dark.
Styles become attributes, because a strict Content-Security-Policy forbids inline styles.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_P = ParamSpec("_P")

WIDTH = 5.6
"""Inches; at 72 points an inch text keeps its size from a phone's width to a column's."""
LABEL_LENGTH = 34

INK, MUTED, GRID, PAPER = "#15202b", "#6b7681", "#d3d9de", "#fdfdfc"
SERIES = ("#3f4a55", "#0072b2", "#d55e00", "#009e73", "#a3538a", "#8a6d00")
"""Reference first, then candidates: Okabe and Ito's colours, darkened where they were too pale on white."""
MARKERS = ("o", "D", "s", "^", "v", "P")
DASHES = ("--", "-", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)))
GOOD, BAD = "#00795a", "#b3361c"

_VARIABLES = {
    INK: "currentColor",
    MUTED: f"var(--muted, {MUTED})",
    GRID: f"var(--rule, {GRID})",
    PAPER: f"var(--paper, {PAPER})",
    GOOD: f"var(--good, {GOOD})",
    BAD: f"var(--bad, {BAD})",
    **{colour: f"var(--series-{number}, {colour})" for number, colour in enumerate(SERIES)},
}
_RC = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "evoscale",
}
_NOT_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def clean_text(value: object, most: int | None = None) -> str:
    """`value` as text without control characters, direction overrides and lone surrogates, cut to `most` characters."""
    text = _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", str(value))
    if most is not None and len(text) > most:
        text = text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return text


def style() -> dict[str, object]:
    """The drawing style, for `matplotlib.rc_context`."""
    return dict(_RC)


def drawn(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw under the house style and leave matplotlib's settings as they were."""

    @functools.wraps(draw)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(style()):
            return draw(*args, **kwargs)

    return inner


def new_figure(height: float, width: float = WIDTH) -> Any:
    """An empty figure, inches; no window, no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def shown_label(label: str) -> str:
    """A label matplotlib keeps as it is (it hides those that start with an underscore)."""
    text = clean_text(label, LABEL_LENGTH)
    return f" {text}" if text.startswith("_") else text


def svg_text(figure: Figure, *, name: str, label: str) -> str:
    """The figure as one `<svg>` element.

    Args:
        figure: drawn under `style()`.
        name: prefix of every id inside, unique on the page.
        label: what the figure shows, for those who cannot see it.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(style()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(buffer.getvalue())
    prefix = re.sub(r"[^a-zA-Z0-9]+", "-", name)
    for parent in list(root.iter()):
        for child in list(parent):
            if _plain(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        _rewrite(element, prefix)
    root.attrib.pop("version", None)
    root.attrib.update({"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": clean_text(label)})
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("width", f"{width:g}")
    root.set("class", "figure")
    return ElementTree.tostring(root, encoding="unicode")


def _plain(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _rewrite(element: ElementTree.Element, prefix: str) -> None:
    """Drop namespaces, turn the style into attributes, make ids unique and colours variables."""
    element.tag = _plain(element.tag)
    attributes: dict[str, str] = {}
    for name, value in element.attrib.items():
        plain = _plain(name)
        if plain == "style":
            attributes.update(_declarations(value))
        else:
            attributes[plain] = value
    for name, value in attributes.items():
        if name == "id":
            value = f"{prefix}-{value}"
        elif name == "href":
            value = f"#{prefix}-{value.removeprefix('#')}"
        elif value.startswith("url(#"):
            value = f"url(#{prefix}-{value[5:]}"
        attributes[name] = _VARIABLES.get(value.lower(), value)
    element.attrib.clear()
    element.attrib.update(attributes)


def _declarations(style_text: str) -> dict[str, str]:
    """CSS declarations as presentation attributes; fonts keep size and weight, the page gives the family."""
    found: dict[str, str] = {}
    for declaration in style_text.split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip(), value.strip()
        if name == "font":
            size = re.search(r"([\d.]+)px", value)
            if size:
                found["font-size"] = size.group(1)
            if re.match(r"(bold|[6-9]00)\b", value):
                found["font-weight"] = "bold"
        elif name == "font-size":
            found[name] = value.removesuffix("px")
        elif name and name != "font-family":
            found[name] = value
    return found
