"""Command lines of tests: what a helper gives, and what a test gives in its place."""


def latest(words):
    """The words with only the last of equal flags, which may be given once."""
    current = []
    found = {"": current}
    for word in words:
        if word.startswith("--"):
            current = found[word.partition("=")[0]] = []
        current.append(word)
    return [word for flag in found.values() for word in flag]
