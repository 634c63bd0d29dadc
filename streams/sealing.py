"""Plays sealed under a key of their listener: who deletes the key makes them unreadable. No Kafka.

AES-256-GCM with random nonces of 12 bytes, twice: a play under a key of its listener, that key under the master key.
One name binds all: what the key is called in `user-keys` is the associated data of the key and of the plays.
"""

import secrets
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streams.operations import digest
from streams.records import Play, SealedPlay
from streams.serialization import DecodeError, Registry, decode, encode, schema_named

KEY_BYTES = 32
NONCE_BYTES = 12
_WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + 16  # GCM's tag


class NotOpened(DecodeError):
    """A sealed play for which there is no key here; the message says what to do."""


class Keys(Protocol):
    """Where keys of listeners are looked up."""

    def get(self, user_id: str, key_id: str) -> bytes | None:
        """The key; None where there is none (any more), DecodeError where it cannot be unwrapped."""
        ...


def key_name(user_id: str, key_id: str) -> bytes:
    """What a listener's key is called in `user-keys`."""
    return f"{digest(user_id)}/{key_id}".encode()


def is_sealed(value: bytes | None) -> bool:
    """Whether a value of `plays` names the schema of sealed plays."""
    return value is not None and schema_named(value) == "sealed_play"


def open_play(value: bytes, *, registry: Registry | None = None, keys: Keys | None = None) -> Play:
    """The play in a value of `plays`, sealed or not. NotOpened without its key, DecodeError for anything else."""
    if not is_sealed(value):
        return decode(Play, value, registry=registry)
    sealed = decode(SealedPlay, value)
    if keys is None:
        raise NotOpened("a sealed play, and no master key is set: set MSAM_MASTER_KEY_FILE, then `msam dlq redrive`")
    key = keys.get(sealed.user_id, sealed.key_id)
    if key is None:
        raise NotOpened(
            f"a sealed play, and user-keys has no key {sealed.key_id} of its listener: it was deleted to forget the "
            "listener, or the producer must publish it before the play; once it is there, `msam dlq redrive`"
        )
    return unseal(sealed, key)


def seal(play: Play, key_id: str, key: bytes) -> SealedPlay:
    """The play, readable only with the key."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    ciphertext = AESGCM(key).encrypt(nonce, encode(play), key_name(play.user_id, key_id))
    return SealedPlay(play.user_id, key_id, nonce, ciphertext)


def unseal(sealed: SealedPlay, key: bytes) -> Play:
    """The play inside; DecodeError where it was changed or is none. No message tells what is in it."""
    name = key_name(sealed.user_id, sealed.key_id)
    try:
        data = AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, name)
    except InvalidTag:
        raise DecodeError(
            "sealed_play: not sealed with this key for this listener, or changed since; seal it anew"
        ) from None
    try:
        play = decode(Play, data)
    except DecodeError:
        raise DecodeError("sealed_play: what is sealed is no valid play; `user_id`, `track_id`, `played_at`?") from None
    if play.user_id != sealed.user_id:
        raise DecodeError("sealed_play: the play inside is another listener's")
    return play


def wrap(master: bytes, name: bytes, key: bytes) -> bytes:
    """A key as `user-keys` holds it: nonce, key and tag under the master key."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(master).encrypt(nonce, key, name)


def unwrap(master: bytes, name: bytes, value: bytes) -> bytes:
    """The key in a record of `user-keys`; DecodeError where it is of another master key or name, or changed."""
    try:
        if len(value) == _WRAPPED_BYTES:
            return AESGCM(master).decrypt(value[:NONCE_BYTES], value[NONCE_BYTES:], name)
    except InvalidTag:
        pass
    shown = name.decode("utf-8", "replace")
    raise DecodeError(f"user-keys: {shown} cannot be unwrapped: is this the master key that it was made with?")


class Keyring:
    """What `user-keys` holds, unwrapped when it is asked for. Written by one thread, read by any."""

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._wrapped: dict[str, dict[str, bytes]] = {}  # digest of the listener -> key_id -> value

    def fold(self, name: bytes, value: bytes | None) -> None:
        """Take in one record; a tombstone takes the key away."""
        user, _, key_id = name.decode("utf-8", "replace").partition("/")
        if value is not None:
            self._wrapped.setdefault(user, {})[key_id] = value
        elif user in self._wrapped:
            self._wrapped[user].pop(key_id, None)

    def get(self, user_id: str, key_id: str) -> bytes | None:
        """The key; None where there is none (any more), DecodeError where it cannot be unwrapped."""
        value = self._wrapped.get(digest(user_id), {}).get(key_id)
        return None if value is None else unwrap(self._master, key_name(user_id, key_id), value)

    def newest(self, user_id: str) -> tuple[str, bytes] | None:
        """The key_id and the key that a listener was given last."""
        own = self._wrapped.get(digest(user_id))
        if not own:
            return None
        key_id, value = next(reversed(own.items()))
        return key_id, unwrap(self._master, key_name(user_id, key_id), value)

    def give(self, user_id: str) -> tuple[bytes, bytes]:
        """A new key for a listener, taken in: the name and the value of the record that publishes it."""
        name = key_name(user_id, secrets.token_hex(8))
        value = wrap(self._master, name, secrets.token_bytes(KEY_BYTES))
        self.fold(name, value)
        return name, value
