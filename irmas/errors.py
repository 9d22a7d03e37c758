"""The errors a user can cause. The doors print their message without a traceback and exit with 2."""


class UserError(Exception):
    """Something the user can mend; the message names what was wrong and what is allowed."""


def in_words(error: BaseException) -> str | None:
    """What a user can mend, without a traceback; None where only a traceback helps."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def first_line(error: Exception) -> str:
    """Of what a library says, which may show the whole file."""
    return (str(error) or repr(error)).splitlines()[0]


class ConfigError(UserError):
    """A setting with a wrong name, type or value."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={value}: {allowed}")
        self.key = key


class DataError(UserError):
    """A data set or feature cache that is missing, damaged or does not fit."""


class RunFailedError(Exception):
    """What a sweeper finds in place of a failed run's accuracy."""
