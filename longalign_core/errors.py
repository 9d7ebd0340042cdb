"""What can go wrong for a user, each with the exit code that the command line gives it.

Every message says what was found, what is allowed and what to change. Our own bugs are assertions.
"""

from __future__ import annotations


class LongAlignError(Exception):
    """A failure the user can do something about. The work failed: exit code 1.

    Attributes:
        label: What its sentence is introduced by.
    """

    exit_code = 1
    label = "error"


class InputError(LongAlignError, ValueError):
    """The user's input is wrong (recipe, option, path, URL): exit code 2."""

    exit_code = 2


class DataError(LongAlignError, ValueError):
    """A record or file cannot be used as it is."""


class SourceError(LongAlignError, RuntimeError):
    """A source cannot be read now: a network, or the place that holds it, failed.

    No OSError: those that carry no number are taken for damage in the data.
    """


class StoreError(LongAlignError, OSError):
    """The store cannot be read or written."""


class ManifestError(StoreError):
    """A manifest is corrupt, of a newer schema, or names a file that is gone."""


class MissingArtifactError(LongAlignError, LookupError):
    """An artifact that must exist does not."""


class EndpointError(LongAlignError, ConnectionError):
    """A model endpoint cannot be reached, refuses the key, or does not know the model."""


class HubError(LongAlignError, ConnectionError):
    """The hub cannot be reached, or refuses what it is asked to do."""


class BudgetError(LongAlignError):
    """A spending cap was reached."""


class WaitingError(LongAlignError):
    """Nothing failed, but replies are still to come, and another run collects them: exit code 4."""

    exit_code = 4
    label = "waiting"


class WorkerError(LongAlignError, RuntimeError):
    """A process that worked on a part of a stage ended without a result."""


class TrainingError(LongAlignError, RuntimeError):
    """The training processes ended without a model."""


class GateError(LongAlignError):
    """The work is done but the result does not pass its gate: exit code 3."""

    exit_code = 3
