"""A store as zarr sees it, on a disk or where fsspec reaches, read only as long as it is the one that was opened.

States are read when they are needed, by the name of the store. Another process may have put those of
another model there meanwhile, or removed it, which zarr would read as no numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import FsspecStore, LocalStore

from probes.errors import InputError
from probes.remote import Address, filesystem, reached


def as_zarr(address: Address) -> Path | FsspecStore:
    """Return what zarr reads and writes at an address."""
    if isinstance(address, Path):
        return address
    filesystem(address)  # which says what is missing
    with reached(address):
        return FsspecStore.from_url(address, storage_options={"use_listings_cache": False})


def opened(address: Address) -> LocalStore | FsspecStore:
    """Return what zarr reads at an address, and no longer reads once another store is there."""
    if isinstance(address, Path):
        return _Same(address)
    with reached(address):
        return _SameElsewhere.from_url(address, storage_options={"use_listings_cache": False}, read_only=True)


def _replaced(where: object) -> InputError:
    return InputError(f"{where}: the store was replaced or removed after it was opened. Open it again")


class _Same(LocalStore):
    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)
        self._opened = self._now()

    def _now(self) -> tuple[int, int] | None:
        try:
            found = (self.root / "zarr.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _check(self) -> None:
        if self._opened is None or self._now() != self._opened:
            raise _replaced(self.root)

    async def get(self, *args: Any, **options: Any) -> Buffer | None:
        found = await super().get(*args, **options)
        self._check()  # afterwards: what was read before is of the store that was opened
        return found

    async def get_partial_values(self, *args: Any, **options: Any) -> list[Buffer | None]:
        found = await super().get_partial_values(*args, **options)
        self._check()
        return found

    def get_sync(self, *args: Any, **options: Any) -> Buffer | None:
        found = super().get_sync(*args, **options)
        self._check()
        return found


class _SameElsewhere(FsspecStore):
    """Whose own metadata are written anew, with another time or hash, before anything else is."""

    _opened: str | None = None

    async def _now(self) -> str | None:
        try:
            return str(await self.fs._info(f"{self.path.rstrip('/')}/zarr.json"))
        except FileNotFoundError:
            return None

    async def _begin(self) -> None:
        if self._opened is None:
            self._opened = await self._now()

    async def _check(self) -> None:
        if self._opened is None or await self._now() != self._opened:
            raise _replaced(self.path)

    async def get(self, *args: Any, **options: Any) -> Buffer | None:
        await self._begin()
        found = await super().get(*args, **options)
        await self._check()
        return found

    async def get_partial_values(self, *args: Any, **options: Any) -> list[Buffer | None]:
        await self._begin()
        found = await super().get_partial_values(*args, **options)
        await self._check()
        return found
