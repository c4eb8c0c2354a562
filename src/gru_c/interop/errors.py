"""The errors of reading and writing models, and one check that all readers make."""

LONGEST = 4000                                             # characters of a message


class MissingExtraError(ImportError):
    """A package that only part of gru_c needs is not installed; the message says how to get it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is needed for this and is not installed: pip install 'gru-c[{extra}]'")


class ModelFileError(ValueError):
    """A file is not what its reader expects, or does not hold together; the message names it.

    The message is one line of characters that a terminal can show, whatever names a file holds.
    """

    def __init__(self, message: str) -> None:
        line = message if message.isprintable() else "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        if len(line) > LONGEST:
            line = f"{line[:LONGEST - 200]} ... {line[-200:]}"
        super().__init__(line)


def hold_size(declared: int, max_bytes: int, where: str) -> None:
    """Refuse arrays of more bytes than the caller allows, before memory is taken."""
    if declared > max_bytes:
        raise ModelFileError(f"{where}: its arrays take {declared:,} bytes, more than "
                             f"max_bytes={max_bytes:,}; raise max_bytes to read it")
