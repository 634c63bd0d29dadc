"""murmur2 against the vectors of Kafka's own UtilsTest.testMurmur2, and against aiokafka's port."""

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.partitioner import murmur2, partition_for


@pytest.mark.parametrize(
    ("key", "java"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_java_vectors(key: bytes, java: int) -> None:
    assert murmur2(key) == java % 2**32


@given(st.binary(max_size=40))
def test_agrees_with_aiokafka(key: bytes) -> None:
    assert murmur2(key) == aiokafka_murmur2(key)


@given(st.binary(max_size=40), st.integers(1, 1000))
def test_partition_is_in_range(key: bytes, partitions: int) -> None:
    assert 0 <= partition_for(key, partitions) < partitions


def test_negative_hashes_are_masked_not_negated() -> None:
    # Java: Utils.toPositive(h) = h & 0x7fffffff; abs() would give another partition.
    assert partition_for(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7 != 973932308 % 7


def test_no_partitions() -> None:
    with pytest.raises(ValueError, match="at least one"):
        partition_for(b"a", 0)
