"""Names, groups and subgroups of the emoji, from a table beside this file.

`emoji_names.tsv` is generated from Unicode's emoji data file and CLDR's English annotations by

    python -m prolip.demo.data.names emoji-test.txt annotations/en.xml annotationsDerived/en.xml

The table in this package is from emoji 17.0 (Unicode-3.0) and CLDR 41 (Unicode-DFS-2016).
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from prolip.errors import UserError

TABLE = Path(__file__).with_name("emoji_names.tsv")

VARIATION_SELECTOR = "FE0F"
"""Selects the coloured form. Packages of art use it inconsistently, so keys leave it out."""
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
# Gendered forms that share neither neutral code points nor neutral words.
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
    """Fully qualified code points in upper-case hexadecimal."""
    name: str
    """Unicode's short name. A skin-tone variant is like "handshake with medium skin tone"."""
    base_name: str
    """The name without the skin tone."""
    group: str
    """Unicode's group, such as "Animals & Nature"."""
    subgroup: str
    """Unicode's subgroup, such as "animal-marine"."""
    keywords: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Code points without the variation selector, such as "1F468-200D-1F373". Art and names are matched by it."""
        return join_key(self.codepoints)

    @property
    def characters(self) -> str:
        """The emoji itself."""
        return "".join(chr(int(code, 16)) for code in self.codepoints)

    @property
    def skin_tones(self) -> tuple[str, ...]:
        """The skin tones in order; empty for a base emoji."""
        return tuple(SKIN_TONES[code] for code in self.codepoints if code in SKIN_TONES)

    @property
    def stems(self) -> tuple[str, ...]:
        """Stems that variants of an emoji share: two emoji with a common stem show the same thing.

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
    """Join code points with "-", in upper case, without the variation selector."""
    return "-".join(code for code in (code.upper() for code in codepoints) if code != VARIATION_SELECTOR)


def spoken_name(unicode_name: str) -> tuple[str, str]:
    """Turn Unicode's name into the name in captions; returns it and the name without the skin tone.

    "kiss: man, man, light skin tone, dark skin tone" becomes "kiss: man, man with light and dark skin tone" and
    "kiss: man, man".
    """
    head, colon, tail = unicode_name.partition(": ")
    parts = tail.split(", ") if colon else []
    tones = [part for part in parts if part in SKIN_TONES.values()]
    if not tones:
        return unicode_name, unicode_name
    rest = [part for part in parts if part not in SKIN_TONES.values()]
    if set(rest) == {"person"}:  # "kiss: person, person, …" is a variant of plain "kiss"
        rest = []
    base = f"{head}: {', '.join(rest)}" if rest else head
    words = " and ".join(tone.removesuffix(" skin tone") for tone in dict.fromkeys(tones))
    return f"{base} with {words} skin tone", base


def parse_emoji_test(text: str) -> list[Emoji]:
    """Parse the fully qualified emoji of Unicode's emoji-test.txt, in order.

    Raises:
        UserError: a line does not have the format that the file's header describes.
    """
    group = subgroup = ""
    found: list[Emoji] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").strip()
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ").strip()
        elif line and not line.startswith("#"):
            match = re.fullmatch(r"([0-9A-F ]+?)\s*; ([a-z-]+)\s*# \S+ E\d+\.\d+ (.+)", line)
            if match is None or not group or not subgroup:
                raise UserError(f"line {number} is not `code points ; status # emoji version name`: {line!r}")
            if match[2] == "fully-qualified":
                name, base_name = spoken_name(match[3].strip())
                codes = tuple(match[1].split())
                found.append(Emoji(codepoints=codes, name=name, base_name=base_name, group=group, subgroup=subgroup))
    return found


def parse_annotations(text: str) -> dict[str, tuple[str, ...]]:
    """Parse keywords by `Emoji.key` from a CLDR annotations file; the spoken name (`type="tts"`) is not a keyword."""
    keywords: dict[str, tuple[str, ...]] = {}
    for node in ElementTree.fromstring(text).iter("annotation"):
        if node.get("type") is None and node.text:
            key = join_key([f"{ord(character):04X}" for character in node.get("cp", "")])
            keywords[key] = tuple(word.strip() for word in node.text.split("|"))
    return keywords


def format_table(emoji: Sequence[Emoji], keywords: Mapping[str, tuple[str, ...]]) -> str:
    """Write the table: code points, name in captions, base name, group, subgroup, keywords.

    Only base emoji have keywords. Those of a variant would be those of its base and its skin tone.
    """
    lines = ["codepoints\tname\tbase_name\tgroup\tsubgroup\tkeywords"]
    for one in emoji:
        words = () if one.skin_tones else keywords.get(one.key, ())
        own = "|".join(word for word in words if word.lower() != one.name.lower())
        lines.append("\t".join(("-".join(one.codepoints), one.name, one.base_name, one.group, one.subgroup, own)))
    return "\n".join(lines) + "\n"


@cache
def read_table() -> tuple[Emoji, ...]:
    """Read all fully qualified emoji, in Unicode's order, from the table beside this file."""
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


def _main(arguments: Sequence[str]) -> None:
    names, *annotations = (Path(argument).read_text(encoding="utf-8") for argument in arguments)
    keywords: dict[str, tuple[str, ...]] = {}
    for text in annotations:
        keywords.update(parse_annotations(text))
    TABLE.write_text(format_table(parse_emoji_test(names), keywords), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1:])
