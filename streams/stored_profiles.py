"""Profiles as `user-profiles` holds them, for jobs that run beside the workers: the newest, or as they once were."""

from collections.abc import Mapping

from msam.features.text import TextEncoder
from streams import topics
from streams.errors import MsamError
from streams.log_reader import key_of, read_to_end
from streams.profiles import NOBODY, Profile, profile_words
from streams.records import UserProfile
from streams.registry import RegistryUnavailable
from streams.serialization import Registry, decode


class StoredProfiles:
    """Profiles by user and version; a version is the next offset of its record, as a worker names it."""

    def __init__(self, encoder_name: str | None) -> None:
        self._encoder_name = encoder_name
        self._encoder: TextEncoder | None = None
        self._rows: dict[str, dict[int, UserProfile]] = {}
        self._newest: dict[str, int] = {}
        self._made: dict[tuple[str, int], Profile] = {}

    def add(self, user_id: str, version: int, profile: UserProfile | None) -> None:
        """Take in the next record of a user; None is a tombstone."""
        if profile is None:
            self._newest.pop(user_id, None)
        else:
            self._rows.setdefault(user_id, {})[version] = profile
            self._newest[user_id] = version

    def newest(self, user_id: str) -> int:
        """The version in force, 0 for none."""
        return self._newest.get(user_id, 0)

    def __call__(self, user_id: str, version: int | None = None) -> Profile:
        """A user's profile at a version (default: the newest); nobody's where the log does not hold it."""
        version = self.newest(user_id) if version is None else version
        found = self._rows.get(user_id, {}).get(version)
        if found is None:
            return NOBODY
        key = (user_id, version)
        if key not in self._made:
            if self._encoder is None:
                self._encoder = TextEncoder(self._encoder_name)
            self._made[key] = Profile(version, *profile_words(self._encoder, [found])[0])
        return self._made[key]


def read_profiles(
    config: Mapping[str, str],
    encoder_name: str | None,
    registry: Registry | None = None,
    stop: Mapping[int, int] | None = None,
) -> StoredProfiles:
    """Every profile that the topic holds up to the offsets `stop` (default: its end)."""
    found = StoredProfiles(encoder_name)
    for message in read_to_end(config, topics.USER_PROFILES, stop=stop):
        key, value, offset = key_of(message), message.value(), message.offset()
        if key is None or offset is None:
            continue
        try:
            user = key.decode()
            profile = None if value is None else decode(UserProfile, value, registry=registry)
        except RegistryUnavailable:
            raise
        except (MsamError, UnicodeDecodeError):
            continue
        if profile is None or profile.user_id == user:
            found.add(user, offset + 1, profile)
    return found
