"""The contract of the key-value table and of the blobs, as tests."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from journeyman.errors import TooLarge
from journeyman.store.base import KEY_LENGTH_MAX, VALUE_BYTES_MAX, Store
from journeyman.testing.contract import Contract, fill, revision_of


@pytest.mark.asyncio
class KeysContract(Contract):
    """What every key-value table must do, and every place for large values."""

    # The key-value table.

    async def test_a_key_that_was_never_put_has_no_entry(self, store: Store) -> None:
        assert await store.keys.get("a") is None
        assert await store.keys.keys() == []

    async def test_a_value_comes_back_with_its_revision(self, store: Store, other: Store) -> None:
        for value in (b"one", b"", bytes(range(256))):
            revision = await store.keys.put("a", value)
            for handle in (store, other):
                entry = await handle.keys.get("a")
                assert entry is not None
                assert (entry.value, entry.revision) == (value, revision)

    async def test_a_revision_grows_with_each_put_and_is_never_0(self, store: Store, other: Store) -> None:
        revisions = [revision_of(await handle.keys.put("a", b"same")) for handle in (store, other, store)]
        assert revisions == sorted(set(revisions))
        assert revisions[0] > 0

    async def test_put_with_expect_changes_only_that_revision(self, store: Store) -> None:
        first = revision_of(await store.keys.put("a", b"1"))
        second = revision_of(await store.keys.put("a", b"2", expect=first))
        for wrong in (0, first, second + 1):
            assert await store.keys.put("a", b"3", expect=wrong) is None
        entry = await store.keys.get("a")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"2", second)

    async def test_expect_0_is_for_a_key_that_does_not_exist(self, store: Store) -> None:
        assert await store.keys.put("a", b"1", expect=5) is None
        assert await store.keys.get("a") is None
        first = await store.keys.put("a", b"1", expect=0)
        assert first
        assert await store.keys.put("a", b"2", expect=0) is None
        assert await store.keys.delete("a")
        assert await store.keys.put("a", b"3", expect=0)

    async def test_a_deleted_key_never_gets_an_old_revision_again(self, store: Store) -> None:
        """Else a writer that slept through delete and put would overwrite what it has never seen."""
        first = revision_of(await store.keys.put("a", b"1"))
        await store.keys.delete("a")
        assert revision_of(await store.keys.put("a", b"2")) > first
        assert await store.keys.put("a", b"3", expect=first) is None

    async def test_delete_removes_a_key(self, store: Store, other: Store) -> None:
        await store.keys.put("a", b"1")
        await store.keys.put("b", b"1")
        assert await other.keys.delete("a") is True
        assert await store.keys.get("a") is None
        assert await store.keys.keys() == ["b"]
        assert await store.keys.delete("a") is False

    async def test_delete_with_expect_removes_only_that_revision(self, store: Store) -> None:
        first = revision_of(await store.keys.put("a", b"1"))
        second = revision_of(await store.keys.put("a", b"2"))
        for wrong in (0, first, second + 1):
            assert await store.keys.delete("a", expect=wrong) is False
        assert await store.keys.get("a") is not None
        assert await store.keys.delete("a", expect=second) is True
        assert await store.keys.delete("a", expect=0) is False

    async def test_keys_are_those_with_the_prefix_sorted(self, store: Store) -> None:
        keys = ["a", "a/2", "a/1", "a_", "b", "a%", "B", "ä", "a/ü", "🦉"]
        for key in keys:
            await store.keys.put(key, b"")
        for prefix in ("", "a", "a/", "a_", "a%", "%", "B", "c", "🦉"):
            assert await store.keys.keys(prefix) == sorted(key for key in keys if key.startswith(prefix))

    async def test_the_longest_key_and_the_largest_value_are_taken(self, store: Store) -> None:
        key, value = "k" * KEY_LENGTH_MAX, os.urandom(VALUE_BYTES_MAX)
        assert await store.keys.put(key, value)
        entry = await store.keys.get(key)
        assert entry is not None
        assert entry.value == value

    async def test_a_key_or_value_over_its_limit_is_too_large(self, store: Store) -> None:
        with pytest.raises(TooLarge):
            await store.keys.put("k" * (KEY_LENGTH_MAX + 1), b"")
        with pytest.raises(TooLarge):
            await store.keys.put("a", bytes(VALUE_BYTES_MAX + 1))
        assert await store.keys.keys() == []

    async def test_of_many_who_expect_one_revision_one_wins(self, store: Store, other: Store) -> None:
        async def count_to_20(handle: Store) -> None:
            counted = 0
            while counted < 20:
                entry = await handle.keys.get("count")
                value, revision = (int(entry.value), entry.revision) if entry else (0, 0)
                await asyncio.sleep(0)
                counted += await handle.keys.put("count", str(value + 1).encode(), expect=revision) is not None

        async with asyncio.timeout(self.patience_s):
            await asyncio.gather(*(count_to_20(handle) for handle in (store, other, store, other)))
        entry = await store.keys.get("count")
        assert entry is not None
        assert entry.value == b"80"

    # Blobs.

    async def test_a_blob_is_what_was_saved_under_its_name_last(self, store: Store, other: Store) -> None:
        assert await store.blobs.load("a/b 1") is None
        await store.blobs.save("a/b 1", iter([b"one", b"", b"two"]))
        assert await other.blobs.load("a/b 1") == b"onetwo"
        await other.blobs.save("a/b 1", [b"three"])
        await store.blobs.save("0", [])
        assert await store.blobs.load("a/b 1") == b"three"
        assert await store.blobs.sizes() == {"0": 0, "a/b 1": 5}

    async def test_a_blob_that_is_not_whole_is_not_there(self, store: Store) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise ZeroDivisionError

        await store.blobs.save("a", [b"old"])
        with pytest.raises(ZeroDivisionError):
            await store.blobs.save("a", broken())
        assert await store.blobs.load("a") == b"old"
        assert await store.blobs.sizes() == {"a": 3}

    async def test_a_deleted_blob_is_gone(self, store: Store, other: Store) -> None:
        await store.blobs.save("a", [b"1"])
        await other.blobs.delete("a")
        await other.blobs.delete("a")
        assert await store.blobs.load("a") is None
        assert await store.blobs.sizes() == {}

    async def test_a_large_blob_holds_nobody_up(self, store: Store) -> None:
        """Its parts are made in another thread, while the log goes on."""
        go = threading.Event()

        def parts() -> Iterator[bytes]:
            assert go.wait(self.patience_s)
            yield b"x"

        saving = asyncio.create_task(store.blobs.save("a", parts()))
        try:
            async with asyncio.timeout(self.patience_s):
                await fill(store, 1)
                assert await store.log.head() == 1
        finally:
            go.set()
            await saving
