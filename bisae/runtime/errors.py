"""Errors that a user can mend, and their explanations."""

from errno import EDQUOT, ENOSPC, EROFS

from omegaconf.errors import OmegaConfBaseException

STOPPED = 128 + 15  # status of a process that SIGTERM has stopped, after a save


class Refused(ValueError):
    """A value that cannot work, refused before any expensive work starts.

    `field` is the name of the argument or attribute with the value; commands map it to their key (bisae.config.keys).
    """

    def __init__(self, field: str, found: object, remedy: str) -> None:
        super().__init__(f"{field}={found}: {remedy}")
        self.field, self.found, self.remedy = field, found, remedy


class ConfigError(Refused):
    """A config value that cannot work: the message starts with the key as it is typed on the command line."""

    @property
    def key(self) -> str:
        return self.field


class TrainingFailed(RuntimeError):
    """Training did not end well. If numbers were no longer finite, the message names the cells and shards."""


class RankLost(TrainingFailed):
    """Another process of the job has ended."""


class AnalysisFailed(RuntimeError):
    """Some cells could not be analysed; the message names them and the reasons. The others are done."""


class Damaged(RuntimeError):
    """A file that cannot be trusted; the message names it and what to do."""


def explained(error: BaseException | None) -> str | None:
    """Return what a user can do about `error` or its cause; None for an error in the program."""
    if error is None:
        return None
    message = str(error)
    if isinstance(error, AnalysisFailed | Damaged | Refused | TrainingFailed):
        return message
    if isinstance(error, OmegaConfBaseException):  # ${...} of a key that is not there, for example
        return f"the config cannot be resolved: {message}"
    if deeper := explained(error.__cause__):
        return deeper
    full = isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT)
    if full or "(os error 28)" in message or "No space left on device" in message:  # libraries have errors of their own
        return f"the disk is full ({_line(message)}); make room and run the same command again: it goes on"
    if isinstance(error, OSError) and (error.errno == EROFS or isinstance(error, PermissionError)):
        return f"cannot be written or read ({_line(message)}); give another folder (runs, cache, output) or the right"
    if isinstance(error, MemoryError) or "out of memory" in message or "can't allocate memory" in message:
        fewer = "fewer SAEs in a job (layer, lists of sae.*), or a smaller batch or pool_batches"
        return f"memory is too small ({_line(message)}); {fewer}"
    return None


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]
