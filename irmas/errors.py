"""The errors that a user can mend. Commands print their message without a traceback and exit with 2."""


class UserError(Exception):
    """A mistake of the user's; the message names what was wrong and what is allowed."""


class ConfigError(UserError):
    """A setting with a wrong name, type or value; `value` is as on the command line."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={value}: {allowed}")
        self.key, self.value, self.allowed = key, value, allowed


class DataError(UserError):
    """A data set or feature cache that is missing, damaged or does not fit."""


class RunFailedError(Exception):
    """Stands for the accuracy of a failed run in the results that a sweeper reads."""


def in_words(error: BaseException) -> str | None:
    """Return the message of an error that a user can mend; None where only a traceback helps."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, which may show a whole file."""
    return (str(error) or repr(error)).splitlines()[0]
