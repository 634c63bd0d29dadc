"""Java's murmur2, the partitioner of record: it decides where a user's plays belong, whatever client sends them."""

from struct import Struct

_WORD = Struct("<I")
_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """MurmurHash2 as Kafka's Java client computes it (Utils.murmur2), as an unsigned 32-bit number.

    >>> murmur2(b"foobar") - 2**32
    -790332482
    """
    tail = len(data) & 3
    whole = len(data) - tail
    h = _SEED ^ len(data)
    for (k,) in _WORD.iter_unpack(data[:whole]):
        k = k * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = h * _M & _MASK ^ k
    if tail:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key: Java's default, librdkafka's `murmur2_random`; ValueError unless partitions >= 1."""
    if partitions < 1:
        raise ValueError(f"partitions is {partitions}; a topic has at least one")
    return (murmur2(key) & 0x7FFFFFFF) % partitions
