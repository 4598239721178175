"""Where an application lives: a message log and a small key-value table, chosen by URL."""

from journeyman.store.base import (
    BATCH_BYTES_MAX,
    BATCH_RECORDS_MAX,
    KEY_LENGTH_MAX,
    VALUE_BYTES_MAX,
    Entry,
    KeyValue,
    MessageLog,
    Store,
)
from journeyman.store.open import open_store

__all__ = [
    "BATCH_BYTES_MAX",
    "BATCH_RECORDS_MAX",
    "KEY_LENGTH_MAX",
    "VALUE_BYTES_MAX",
    "Entry",
    "KeyValue",
    "MessageLog",
    "Store",
    "open_store",
]
