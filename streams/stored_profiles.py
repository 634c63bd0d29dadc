"""Profiles as they stand in `user-profiles`, for jobs that run beside the workers."""

from collections.abc import Callable, Mapping

from msam.features.text import TextEncoder
from streams import topics
from streams.errors import MsamError
from streams.log_reader import key_of, read_to_end
from streams.profiles import NOBODY, Profile, profile_words
from streams.records import UserProfile
from streams.serialization import Registry, decode


def read_profiles(
    config: Mapping[str, str], encoder_name: str | None, registry: Registry | None = None
) -> Callable[[str], Profile]:
    """A lookup from user to profile, with the versions that a worker would name."""
    rows: dict[str, tuple[int, UserProfile]] = {}
    for message in read_to_end(config, topics.USER_PROFILES):
        key, value, offset = key_of(message), message.value(), message.offset()
        if key is None or offset is None:
            continue
        try:
            user = key.decode()
            if value is None:
                rows.pop(user, None)
            elif (profile := decode(UserProfile, value, registry=registry)).user_id == user:
                rows[user] = offset + 1, profile
        except (MsamError, UnicodeDecodeError):
            continue
    encoder = TextEncoder(encoder_name) if rows else None
    made: dict[str, Profile] = {}

    def find(user: str) -> Profile:
        if user not in rows or encoder is None:
            return NOBODY
        if user not in made:
            version, profile = rows[user]
            made[user] = Profile(version, *profile_words(encoder, profile))
        return made[user]

    return find
