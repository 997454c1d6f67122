"""Names, groups and subgroups of the emoji.

`emoji_names.tsv` was made from emoji-test.txt 17.0 (Unicode-3.0) and CLDR 41's English annotations (Unicode-DFS-2016).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("emoji_names.tsv")

VARIATION_SELECTOR = "FE0F"
"""Selects the coloured form. Art packages use it inconsistently, so keys leave it out."""
ZERO_WIDTH_JOINER = "200D"
SKIN_TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}

# Gendered persons and their neutral form. Variants of an emoji share a stem of neutral forms.
_NEUTRAL = {
    "1F468": "1F9D1",  # man
    "1F469": "1F9D1",  # woman
    "1F466": "1F9D2",  # boy
    "1F467": "1F9D2",  # girl
    "1F474": "1F9D3",  # old man
    "1F475": "1F9D3",  # old woman
}
# Left out of a stem: signs of gender and direction, and joiners.
_STEMLESS = {"2640", "2642", "27A1", VARIATION_SELECTOR, ZERO_WIDTH_JOINER}
_GENDERED_WORDS = re.compile(r"\b(man|woman|person|boy|girl|child|men|women|people|old man|old woman|older person)\b")
# Those that share neither neutral code points nor neutral words.
_SAME_STEM = {
    "mrs. claus": "santa claus",
    "mx claus": "santa claus",
    "prince": "person with crown",
    "princess": "person with crown",
    "woman dancing": "dancing",
    "man dancing": "dancing",
    "pregnant woman": "pregnant person",
    "pregnant man": "pregnant person",
    "men holding hands": "holding hands",
    "women holding hands": "holding hands",
    "woman and man holding hands": "holding hands",
    "people holding hands": "holding hands",
}


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One emoji of Unicode's list."""

    codepoints: tuple[str, ...]
    """Fully qualified, in upper-case hexadecimal."""
    name: str
    """Of a skin-tone variant like "handshake with medium skin tone"."""
    base_name: str
    group: str
    """Such as "Animals & Nature"."""
    subgroup: str
    """Such as "animal-marine"."""
    keywords: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Code points without the variation selector, such as "1F468-200D-1F373", which match art and names."""
        return join_key(self.codepoints)

    @property
    def characters(self) -> str:
        """The emoji itself."""
        return "".join(chr(int(code, 16)) for code in self.codepoints)

    @property
    def skin_tones(self) -> tuple[str, ...]:
        """In order; empty for a base emoji."""
        return tuple(SKIN_TONES[code] for code in self.codepoints if code in SKIN_TONES)

    @property
    def stems(self) -> tuple[str, ...]:
        """Two emoji with a common stem show the same thing.

        There are two, because "man cook" and "woman cook" share code points, while "woman dancing" and "man dancing"
        are unrelated characters that share a name.
        """
        codes = [_NEUTRAL.get(code, code) for code in self.codepoints if code not in SKIN_TONES]
        by_code = "-".join(code for code in codes if code not in _STEMLESS) or self.key  # these alone are emoji too
        name = self.base_name.lower()
        by_name = _SAME_STEM.get(name) or _GENDERED_WORDS.sub("person", name)
        if by_name.startswith(("kiss:", "couple with heart:", "family:")):
            by_name = by_name.split(":")[0]
        return (f"code {by_code}", f"name {by_name}")


def join_key(codepoints: Sequence[str]) -> str:
    """With "-", without the variation selector."""
    return "-".join(code for code in (code.upper() for code in codepoints) if code != VARIATION_SELECTOR)


@cache
def read_table() -> tuple[Emoji, ...]:
    """All fully qualified emoji, in Unicode's order."""
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]]
    return tuple(
        Emoji(
            codepoints=tuple(codes.split("-")),
            name=name,
            base_name=base_name,
            group=group,
            subgroup=subgroup,
            keywords=tuple(keywords.split("|")) if keywords else (),
        )
        for codes, name, base_name, group, subgroup, keywords in rows
    )
