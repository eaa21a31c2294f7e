"""Make names that others chose safe to show: one column of one line, whatever is in them."""

_LONGEST = 255


def one_column(name: bytes) -> str:
    r"""Return `name` as one token of printable characters, never empty and never beginning with `#`.

    What is not printable, white space, and the backslash itself become `\xNN` of each of their bytes; too long a name
    is cut.
    """
    shown = "".join(_shown(character) for character in name.decode("utf-8", "surrogateescape"))
    if shown.startswith("#"):
        shown = _escaped("#") + shown[1:]
    return shown[:_LONGEST] or "?"


def _shown(character: str) -> str:
    return (
        character if character.isprintable() and not character.isspace() and character != "\\" else _escaped(character)
    )


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
