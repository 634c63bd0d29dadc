"""The table stores of a worker: RocksDB through Faust's store, with its memory bounded and atomic batch writes."""

from collections.abc import Iterator
from typing import Any

import rocksdict
from faust.stores.rocksdb import RocksDBOptions
from faust.types import TP

#: Faust's defaults are 2 GiB of block cache and three memtables of 64 MiB for every partition.
ROCKSDB_OPTIONS: dict[str, Any] = {
    "driver": "rocksdict",
    "block_cache_size": 8 * 2**20,
    "write_buffer_size": 4 * 2**20,
    "max_write_buffer_number": 2,
    "target_file_size_base": 8 * 2**20,
    "max_open_files": 128,
}
#: A memtable is made of blocks of this size. RocksDB's default, an eighth of it, leaves holes in malloc's heap.
MEMTABLE_BLOCK = 64 * 2**10


class _Options(RocksDBOptions):  # Faust's know no block size
    def as_options(self) -> Any:
        options = super().as_options()
        options.set_arena_block_size(MEMTABLE_BLOCK)
        return options


class TableStore:
    """Direct, partition-wise access to a Faust table's RocksDB: safe from any thread, one atomic write a batch."""

    def __init__(self, table: Any, topic: str) -> None:
        self._store: Any = table.data  # faust.stores.rocksdb.Store
        self._store.rocksdb_options = _Options(**self._store.options, use_rocksdict=self._store.use_rocksdict)
        self._topic = topic

    def get(self, partition: int, key: bytes) -> bytes | None:
        """The value of `key` in `partition`."""
        value: bytes | None = self._store._db_for_partition(partition).get(key)
        return value

    def position(self, partition: int) -> int:
        """The changelog offset up to which the store holds the table, -1 for none."""
        offset: int | None = self._store.persisted_offset(TP(self._topic, partition))
        return -1 if offset is None else offset

    def keys(self, partition: int) -> Iterator[bytes]:
        """Every key of a partition."""
        keys: Iterator[bytes] = self._store._db_for_partition(partition).keys()
        return (key for key in keys if key != self._store.offset_key)

    def write(self, partition: int, records: list[tuple[bytes, bytes | None]], position: int) -> None:
        """Put (None: delete) the records and remember the changelog position, atomically."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in records:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self._store.offset_key, str(position).encode())
        self._store._db_for_partition(partition).write(batch)
