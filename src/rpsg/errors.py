"""Every exception `rpsg` raises on purpose.

    RpsgError
    ├── ConfigError          a setting is missing, unknown or out of range
    ├── DataError            the input data cannot be used as it is
    │   └── NotComputable    a metric has no meaning for these data; shown as such, never as a number
    ├── PrivacyError         going on would break a privacy promise
    │   ├── BudgetExceeded   the release would cost more than the budget holds
    │   └── PrivateDataError private text would reach a place it must not reach
    ├── ModelError           a model cannot do what was asked
    │   ├── ModelBusy        try again later
    │   ├── ModelRefused     the model or its provider declined
    │   ├── BadCompletion    the reply is not usable
    │   └── ModelUnavailable the model's files or server are not there
    ├── RunDirError          the run folder is not in the expected state
    ├── RunInterrupted       the run stopped before its end; what was done is kept
    │   └── LimitReached     the next call might go over a limit on cost, tokens or time
    └── MissingExtra         an optional package is needed and not installed

A message gives the name and value at fault, what is allowed, and what to do next. It holds ids and
counts, never text of a private record. The command line prints it and exits with status 2; any
other exception is a bug and keeps its traceback.
"""


class RpsgError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(RpsgError):
    """A setting is missing, unknown or out of range."""


class DataError(RpsgError):
    """The input data cannot be used as it is."""


class NotComputable(DataError):
    """A metric has no meaning for these data."""


class PrivacyError(RpsgError):
    """Going on would break a privacy promise."""


class BudgetExceeded(PrivacyError):
    """The release would cost more than the budget holds; nothing was drawn."""


class PrivateDataError(PrivacyError):
    """Private text would reach a place it must not reach."""


class ModelError(RpsgError):
    """A model cannot do what was asked."""


class ModelBusy(ModelError):
    """The model or its server is busy; the same call may succeed later."""


class ModelRefused(ModelError):
    """The model or its provider declined the request."""


class BadCompletion(ModelError):
    """The model's reply is not usable."""


class ModelUnavailable(ModelError):
    """The model's files or server are not there."""


class RunDirError(RpsgError):
    """The run folder is not in the expected state."""


class RunInterrupted(RpsgError):
    """The run stopped before its end; everything finished so far is kept."""


class LimitReached(RunInterrupted):
    """The next call might go over a limit on cost, tokens or time."""


class MissingExtra(RpsgError):
    """An optional package is needed and not installed."""
