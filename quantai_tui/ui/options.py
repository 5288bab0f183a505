"""Textual's list of options, except that the one under the cursor is seen without colours too."""

from __future__ import annotations

from textual.style import Style
from textual.widgets import OptionList

_CURSOR = "option-list--option-highlighted"


class Options(OptionList):
    """`text-style: reverse` works for the option under the cursor.

    The pinned Textual release leaves it out where it makes a style from CSS (`Widget.get_visual_style`), and on a terminal of
    plain colours there is nothing else to tell the cursor by.
    """

    def get_visual_style(self, *component_classes: str, partial: bool = False) -> Style:
        style = super().get_visual_style(*component_classes, partial=partial)
        if _CURSOR in component_classes and self.get_component_styles(_CURSOR).text_style.reverse:
            style += Style(reverse=True)
        return style
