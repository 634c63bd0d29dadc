"""One error root for the online side: a message says what was wrong, where, and what to do."""


class MsamError(Exception):
    """Root of every error that `streams` raises on purpose; the command line prints it as one line."""


class ConfigError(MsamError):
    """A setting is missing or wrong."""


class NotReady(MsamError):
    """Something that this step needs does not exist yet (a broker, a topic, a model)."""
