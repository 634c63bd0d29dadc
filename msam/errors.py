"""One error root for the method."""


class MethodError(Exception):
    """Root of every error that `msam` raises on purpose."""
