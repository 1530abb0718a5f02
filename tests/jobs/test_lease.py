import asyncio
from typing import Any

import pytest

from bulletproof.jobs.lease import Leases, leases_of, take_slot
from bulletproof.store.address import Address, parse_address


async def test_a_lock_has_one_holder_and_is_free_when_that_is_gone(place: Address) -> None:
    first, second = leases_of(place), leases_of(place)
    assert await first.take("3")
    assert not await second.take("3")
    assert not await first.take("3")  # nor twice the same
    assert await first.holds("3")
    assert not await second.holds("3")
    await first.aclose()
    assert not await first.holds("3")
    assert await second.take("3")
    await second.free("3")
    assert await first.take("3")
    await first.aclose()
    await second.aclose()


async def test_slots_are_unique_and_used_again(place: Address) -> None:
    holders: list[Leases] = [leases_of(place) for _ in range(4)]
    assert [await take_slot(leases) for leases in holders] == ["0", "1", "2", "3"]
    await holders[1].aclose()
    late = leases_of(place)
    assert await take_slot(late) == "1"
    for leases in [*holders, late]:
        await leases.aclose()


async def test_a_lock_file_that_was_removed_is_no_longer_held(tmp_path: Any) -> None:
    leases = leases_of(parse_address(None, tmp_path))
    await leases.take("0")
    (tmp_path / "executors" / "0.lock").unlink()
    assert not await leases.holds("0")
    await leases.aclose()


@pytest.mark.parametrize("end", ["pg_terminate_backend", "nothing"])
async def test_a_broken_connection_loses_all_locks_and_the_next_has_none_of_them(postgres: Any, end: str) -> None:
    url = postgres.create_database()
    leases, other = leases_of(parse_address(url, ".")), leases_of(parse_address(url, "."))
    assert await leases.take("0")
    if end == "pg_terminate_backend":
        postgres.run_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'", url.rpartition("/")[2]
        )
        assert not await leases.holds("0")
        await asyncio.sleep(0)
        assert await other.take("0")
        assert not await leases.take("0")
        assert await leases.take("1")
        assert not await leases.holds("0")
    else:
        assert await leases.holds("0")
    await leases.aclose()
    await other.aclose()
