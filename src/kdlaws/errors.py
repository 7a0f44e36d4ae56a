"""Every error that kdlaws raises on purpose.

KdlawsError                 exit code 1: a computation failed
├── InputError              exit code 2: configuration, arguments or input are wrong
│   ├── ConfigError             a study file, or a key=value override
│   ├── TableError              a run table, or one of its columns
│   ├── ArtefactError           a file of ours that does not belong to what reads it
│   └── MissingExtraError       an optional dependency is not installed
├── AllDivergedError        exit code 3: every run diverged
└── StoppedError            exit code 75: interrupted, and resumable

Each message says what is wrong, where, and what to do.
"""


class KdlawsError(Exception):
    """Base of the tree; ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        message = f"{self.where}: {self.what}" if self.where else self.what
        return f"{message}\n  {self.remedy}" if self.remedy else message

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default pickling, and errors cross processes.
        return (_rebuild, (type(self), self.what, self.where, self.remedy))


def _rebuild(kind: type[KdlawsError], what: str, where: str, remedy: str) -> KdlawsError:
    return kind(what, where=where, remedy=remedy)


class InputError(KdlawsError):
    exit_code = 2


class ConfigError(InputError):
    pass


class TableError(InputError):
    pass


class ArtefactError(InputError):
    pass


class MissingExtraError(InputError):
    pass


class AllDivergedError(KdlawsError):
    exit_code = 3


class StoppedError(KdlawsError):
    exit_code = 75
