"""Texts that would steer a terminal, be read as markup, or break an encoding; and what may reach a terminal."""

from __future__ import annotations

import unicodedata

STEERING = {
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "link": "\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "C1 sequence": "\x9b2J",
    "C1 command": "\x9d0;owned\x9c",
    "overwritten": "bad\rgood\b\b\b\b",
    "right to left": "a\u202etxt.exe",
    "isolate": "\u2066a\u2069",
    "marks": "a\u200eb\u200fc\u061cd",
    "no width": "a\u200bb\u2060c\ufeffd\u00ade",
    "joiners": "a\u200cb\u200dc",
    "line ends": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "tags": "a\U000e0041\U000e007f",
    "fillers": "a\u3164b\uffa0c",
    "surrogate": "a\udcffb\ud800c",
    "delete": "a\x7fb",
    "nul": "a\x00b",
}
MARKUP = ("[/nope]", "[bold red]x[/]", "[link=http://evil]x[/link]", ":smile:", "[", "\\[x]", "$x_$", "{name}", "%s")


def steers(text: str, *, lines: bool = True) -> str:
    """The characters of a text that a terminal would obey or not show."""
    allowed = "\n\t" if lines else ""
    # private use is drawn as a box; the rest of "other" is not
    return "".join(
        character
        for character in text
        if character not in allowed
        and (
            unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") or character in "\u3164\uffa0\u115f\u1160"
        )
    )
