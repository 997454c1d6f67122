"""The table of emoji: Unicode's file and keywords are read, and variants of a name share a stem."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from prolip.demo.data.names import (
    Emoji,
    format_table,
    join_key,
    parse_annotations,
    parse_emoji_test,
    read_table,
    spoken_name,
)

SNIPPET = """\
# emoji-test.txt
# Version: 17.0

# group: Animals & Nature

# subgroup: animal-marine
1F421                      ; fully-qualified     # 🐡 E0.6 blowfish

# group: Objects
# subgroup: tool
26D3 FE0F 200D 1F4A5       ; fully-qualified     # ⛓️‍💥 E15.1 broken chain
26D3 200D 1F4A5            ; unqualified         # ⛓‍💥 E15.1 broken chain
1F3FB                      ; component           # 🏻 E1.0 light skin tone
1F91D 1F3FD                ; fully-qualified     # 🤝🏽 E14.0 handshake: medium skin tone
# EOF
"""


def emoji(name: str, *codes: str) -> Emoji:
    spoken, base = spoken_name(name)
    return Emoji(codepoints=codes, name=spoken, base_name=base, group="g", subgroup="s")


def test_unicodes_file_is_read_as_its_header_describes() -> None:
    fish, chain, handshake = parse_emoji_test(SNIPPET)
    assert (fish.name, fish.group, fish.subgroup, fish.characters) == (
        "blowfish",
        "Animals & Nature",
        "animal-marine",
        "🐡",
    )
    assert (chain.key, chain.group, chain.subgroup) == ("26D3-200D-1F4A5", "Objects", "tool")
    assert chain.codepoints == ("26D3", "FE0F", "200D", "1F4A5")
    assert (handshake.name, handshake.base_name) == ("handshake with medium skin tone", "handshake")
    assert handshake.skin_tones == ("medium skin tone",)
    assert fish.skin_tones == ()


@pytest.mark.parametrize("line", ["1F421 ; fully-qualified", "blowfish"])
def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 3 is not"):
        parse_emoji_test(f"# group: A\n# subgroup: b\n{line}\n")


def test_an_entry_before_any_group_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 1 is not"):
        parse_emoji_test("1F421 ; fully-qualified     # 🐡 E0.6 blowfish\n")


@pytest.mark.parametrize(
    ("unicode_name", "spoken", "base"),
    [
        ("blowfish", "blowfish", "blowfish"),
        ("flag: South Africa", "flag: South Africa", "flag: South Africa"),
        ("man: red hair", "man: red hair", "man: red hair"),
        ("handshake: medium skin tone", "handshake with medium skin tone", "handshake"),
        ("man: medium-light skin tone, red hair", "man: red hair with medium-light skin tone", "man: red hair"),
        (
            "kiss: man, man, light skin tone, dark skin tone",
            "kiss: man, man with light and dark skin tone",
            "kiss: man, man",
        ),
        ("kiss: person, person, dark skin tone, light skin tone", "kiss with dark and light skin tone", "kiss"),
    ],
)
def test_skin_tones_are_put_into_words(unicode_name: str, spoken: str, base: str) -> None:
    assert spoken_name(unicode_name) == (spoken, base)


def test_names_are_joined_without_the_variation_selector() -> None:
    assert join_key(["0023", "fe0f", "20E3"]) == "0023-20E3"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (emoji("man cook", "1F468", "200D", "1F373"), emoji("woman cook", "1F469", "200D", "1F373")),
        (emoji("cook: dark skin tone", "1F9D1", "1F3FF", "200D", "1F373"), emoji("man cook", "1F468", "200D", "1F373")),
        (emoji("woman dancing", "1F483"), emoji("man dancing", "1F57A")),
        (emoji("boy", "1F466"), emoji("child", "1F9D2")),
        (emoji("man walking", "1F6B6", "200D", "2642", "FE0F"), emoji("person walking", "1F6B6")),
        (emoji("person walking facing right", "1F6B6", "200D", "27A1", "FE0F"), emoji("person walking", "1F6B6")),
        (emoji("man: beard", "1F9D4", "200D", "2642"), emoji("woman: beard", "1F9D4", "200D", "2640")),
        (emoji("Santa Claus", "1F385"), emoji("Mrs. Claus", "1F936")),
        (emoji("kiss: man, man", "1F468", "200D", "2764"), emoji("kiss: woman, man", "1F469", "200D", "2764")),
    ],
)
def test_variants_share_a_stem(one: Emoji, other: Emoji) -> None:
    assert set(one.stems) & set(other.stems)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (emoji("man cook", "1F468", "200D", "1F373"), emoji("man farmer", "1F468", "200D", "1F33E")),
        (emoji("female sign", "2640", "FE0F"), emoji("male sign", "2642", "FE0F")),
        (emoji("flag: France", "1F1EB", "1F1F7"), emoji("flag: Spain", "1F1EA", "1F1F8")),
        (emoji("right arrow", "27A1", "FE0F"), emoji("female sign", "2640", "FE0F")),
        (emoji("man: red hair", "1F468", "200D", "1F9B0"), emoji("man: bald", "1F468", "200D", "1F9B2")),
    ],
)
def test_different_emoji_share_no_stem(one: Emoji, other: Emoji) -> None:
    assert not set(one.stems) & set(other.stems)


def test_keywords_are_read_without_the_spoken_name() -> None:
    text = '<ldml><annotations><annotation cp="🐡">blowfish | fish</annotation>'
    text += '<annotation cp="🐡" type="tts">blowfish</annotation></annotations></ldml>'
    assert parse_annotations(text) == {"1F421": ("blowfish", "fish")}


def test_the_table_is_written_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = parse_emoji_test(SNIPPET)
    keywords = {"1F421": ("Blowfish", "fish", "sea"), "1F91D-1F3FD": ("agreement",)}
    path = tmp_path / "names.tsv"
    path.write_text(format_table(listed, keywords), encoding="utf-8")
    monkeypatch.setattr("prolip.demo.data.names.TABLE", path)
    read = read_table.__wrapped__()
    assert [one.keywords for one in read] == [("fish", "sea"), (), ()], "the name is no keyword, a variant has none"
    assert [(one.codepoints, one.name, one.base_name, one.group, one.subgroup) for one in read] == [
        (one.codepoints, one.name, one.base_name, one.group, one.subgroup) for one in listed
    ]


def test_the_shipped_table_is_unicode_17() -> None:
    table = read_table()
    assert len(table) == 3944
    assert len({one.key for one in table}) == 3944, "keys without U+FE0F stay different"
    assert len({one.name for one in table}) == 3944
    base = [one for one in table if not one.skin_tones]
    assert len(base) == 1914
    assert len({one.group for one in table}) == 9
    assert len({one.subgroup for one in table}) == 98
    assert {one.base_name for one in table} == {one.name for one in base}, "every variant has its base"
    assert next(one for one in table if one.name == "blowfish").keywords == ("fish",)


def test_no_stem_joins_more_than_a_few_emoji() -> None:
    by_code = Counter(one.stems[0] for one in read_table() if not one.skin_tones)
    by_name = Counter(one.stems[1] for one in read_table() if not one.skin_tones)
    assert max(by_code.values()) <= 10
    assert by_name.most_common(1)[0] == ("name family", 30)
    assert by_name.most_common(2)[1][1] <= 9
