"""Errors that a user can cause; each message says what was found, what was expected and what to do."""


class AbsaEditError(Exception):
    """Any error whose message is written for the user; the command line prints it without a traceback."""


class DataError(AbsaEditError):
    """Broken or missing data; names the file and the record."""


class ModelError(AbsaEditError):
    """A model, tokenizer or prompt that cannot be used as asked."""


class PlanError(AbsaEditError):
    """A plan that fits the model nowhere, or a localizer that cannot make one."""


class FitError(AbsaEditError):
    """A training that went wrong."""


class RecordError(AbsaEditError):
    """A file of a run that is not what its name says."""


class ExportMismatch(AbsaEditError):
    """An exported checkpoint that does not answer like the model in memory."""


class CannotMerge(AbsaEditError):
    """An adapter that cannot be folded into weights."""


class PushError(AbsaEditError):
    """An export that could not be put on the hub."""


class SettingsError(AbsaEditError):
    """A setting that is unknown or makes no sense beside another."""
