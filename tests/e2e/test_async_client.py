"""What only the client for asyncio can do wrong; the rest is in test_client.py and test_deferred.py."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import DaemonUnderTest, eventually

from jobd.client import Client
from jobd.client.aio import AsyncClient
from jobd.model.errors import DaemonUnreachable, WaitTimeout

Make = Callable[..., DaemonUnderTest]
MIB = 1024 * 1024


async def so(look: Callable[[], object]) -> None:
    """Wait until something is so, and let the loop run meanwhile."""
    for _ in range(2000):
        if look():
            return
        await asyncio.sleep(0.01)  # between two looks
    pytest.fail(f"not so in time: {look}")


def test_a_thousand_tasks_await_their_results_at_once(shared: DaemonUnderTest) -> None:
    """Each is woken by its own end."""

    async def main() -> None:
        async with AsyncClient(shared.socket) as client:
            values = await asyncio.gather(*(client.submit("work:add", n) for n in range(1000)))
            assert values == list(range(1, 1001))
            assert not client._waiting

    asyncio.run(main())


def test_map_of_what_is_endless_looks_ahead_so_far(shared: DaemonUnderTest) -> None:
    """As with threads."""

    async def main() -> None:
        source = itertools.count(1)
        async with AsyncClient(shared.socket) as client:
            results = client.map("work:add", source, buffersize=3)
            assert next(source) == 4
            assert [await anext(results) for _ in range(3)] == [2, 3, 4]
            assert next(source) == 8

    asyncio.run(main())


def test_the_loop_goes_on_while_a_result_is_awaited(shared: DaemonUnderTest, gate: Path) -> None:
    """And a task that is cancelled, or whose time is up, leaves nothing behind."""
    open_gate = gate.touch

    async def main() -> None:
        async with AsyncClient(shared.socket) as client:
            slow = client.submit("faults:wait_at", str(gate.with_name("mark")), str(gate))
            waiter = asyncio.create_task(slow.result())
            given_up = asyncio.create_task(slow.result())
            assert await client.submit("work:add", 1, 2) == 3
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            with pytest.raises(WaitTimeout):
                await slow.result(timeout=0.01)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await slow
            assert len(client._waiting) == 1
            assert len(slow._waiters or ()) == 1
            open_gate()
            assert await waiter == await slow == "through"

    asyncio.run(main())


def test_what_the_socket_does_not_take_goes_out_as_the_daemon_reads(
    shared: DaemonUnderTest,
) -> None:
    """Many megabytes at once, in both directions, while the loop stays free."""

    async def main() -> None:
        async with AsyncClient(shared.socket) as client:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            texts = ["x" * 4 * MIB + str(n) for n in range(8)]
            deferreds = [client.submit("work:echo", text) for text in texts]
            transport = client._transport
            assert transport is not None
            unsent = [transport.unsent]
            assert [(await d)[0] for d in deferreds] == [[text] for text in texts]
            assert [*unsent, transport.unsent] == [True, False]
            assert ticks > 100
            ticking.cancel()

    asyncio.run(main())


def test_a_client_that_is_not_open_says_so(shared: DaemonUnderTest) -> None:
    """Before it is opened, and after it was closed; it can be closed again."""

    async def main() -> None:
        client = AsyncClient(shared.socket)
        with pytest.raises(DaemonUnreachable, match=r"not open \(use 'async with'\)"):
            client.submit("work:add", 1)
        await client.close()
        async with client:
            deferred = client.submit("work:add", 1)
            assert await deferred.id
        await client.close()
        for ask in (client.status, client.ping, client.attach(987_654_321).result):
            with pytest.raises(DaemonUnreachable, match="is closed"):
                await ask()

    asyncio.run(main())


def test_a_client_that_is_closed_tells_those_that_wait(shared: DaemonUnderTest, gate: Path) -> None:
    """They do not wait for ever."""

    async def main() -> None:
        async with AsyncClient(shared.socket) as client:
            slow = client.submit("faults:wait_at", str(gate.with_name("mark")), str(gate))
            waiter = asyncio.create_task(slow.result())
            await client.flush()
        with pytest.raises(DaemonUnreachable, match="is closed"):
            await waiter

    asyncio.run(main())


def test_a_cancelled_block_waits_for_nothing(make_daemon: Make) -> None:
    """Neither for the answer to a submit, nor for a connection that is being made."""
    daemon = make_daemon().start()

    async def main() -> None:
        async def submits() -> None:
            async with AsyncClient(daemon.socket) as client:
                client.submit("faults:give_bytes", 10)
                await asyncio.sleep(3600)

        async def connects() -> None:
            async with AsyncClient(daemon.socket):
                await asyncio.sleep(3600)

        tasks = [asyncio.create_task(submits()), asyncio.create_task(connects())]
        await asyncio.sleep(0)  # the second is in the middle of it
        tasks[1].cancel()
        with Client(daemon.socket) as other:
            await so(lambda: other.status().jobs.get("succeeded"))
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2

    asyncio.run(main())


def test_a_coroutine_job_may_await_another_on_its_only_worker(make_daemon: Make) -> None:
    """It lends its slot, as a job does that waits with the client for threads."""
    daemon = make_daemon(pool__workers=1).start()
    daemon.write_module(
        "nest",
        "import jobd\n"
        "async def nested(depth):\n"
        "    if not depth:\n"
        "        return 0\n"
        "    async with jobd.AsyncClient() as client:\n"
        "        return 1 + await client.submit('nest:nested', depth - 1)\n",
    )
    assert daemon.client().submit("nest:nested", 5).result(20) == 5


def test_clients_that_die_while_they_wait_cost_the_daemon_nothing(
    make_daemon: Make, gate: Path
) -> None:
    """Fifty of them, killed while they wait for one job: its end is told to the one that lives."""
    daemon = make_daemon().start()
    client = daemon.client()
    deferred = client.submit("faults:wait_at", str(gate.with_name("mark")), str(gate))
    number = deferred.id

    def files() -> int:
        return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))

    daemon.settle()
    before = files()

    async def die() -> None:
        clients = [AsyncClient(daemon.socket) for _ in range(50)]
        await asyncio.gather(*(other.open() for other in clients))
        waiting = [asyncio.create_task(other.result(number)) for other in clients]
        await so(lambda: all(other.attach(number)._watched for other in clients))
        for other in clients:
            other._hang_up()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(die())
    eventually(lambda: files() <= before)
    gate.touch()
    assert deferred.result(20) == "through"
    assert client.status().trouble == []
    assert "Traceback" not in daemon.log
