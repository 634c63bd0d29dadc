"""Why a clip has no descriptors: one class a reason."""

from msam.errors import MethodError


class AudioError(MethodError):
    """Root of the reasons; `reason` is a stable word for metrics and dead letters."""

    reason = "audio"


class NotAudio(AudioError):
    """The bytes are no audio of an accepted format."""

    reason = "not-audio"


class Truncated(AudioError):
    """The header promises more sound than there are bytes."""

    reason = "truncated"


class TooShort(AudioError):
    """The clip is too short for stable statistics."""

    reason = "too-short"


class TooLong(AudioError):
    """The clip, or its file, is over the limit."""

    reason = "too-long"


class Silence(AudioError):
    """Nothing can be heard."""

    reason = "silence"


class NonFinite(AudioError):
    """Samples are NaN, infinite or absurdly large."""

    reason = "non-finite"
