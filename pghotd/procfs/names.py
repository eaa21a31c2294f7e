"""Make untrusted names safe to show: one column of one line, whatever they contain."""

_LONGEST = 255


def one_column(name: bytes) -> str:
    r"""Return `name` as one token of printable characters, never empty and never beginning with `#`.

    White space, backslashes and unprintable characters become `\xNN` for each of their bytes; a name that is too long
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
