"""The errors of reading and writing models."""


class MissingExtraError(ImportError):
    """A package that only part of gru_c needs is not installed; the message says how to get it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is needed for this and is not installed: pip install 'gru-c[{extra}]'")


class ModelFileError(ValueError):
    """A file is not what its reader expects, or does not hold together; the message names it."""
