"""One call with all its attempts, whoever repeats it: tenacity, stamina, the client itself, or a loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpcore
import httpx
import httpx2
import pytest
import requests
import stamina
import tenacity
import urllib3
from requests.adapters import HTTPAdapter
from services import TLS, Answer, Service, unused_port

from pyscope import probes
from pyscope.analysis import external
from pyscope.findings import ExternalCall
from pyscope.trace import Trace

Calls = Callable[..., list[ExternalCall]]
BACKOFF = 0.02
FOUR = {"stop": tenacity.stop_after_attempt(4), "wait": tenacity.wait_fixed(BACKOFF), "reraise": True}
SOON = 0.2


def refuse(service: Service, times: int) -> None:
    service.answers = [Answer(503)] * times


def get(service: Service) -> None:
    httpx2.get(f"{service.url}/work", verify=TLS).raise_for_status()


async def aget(service: Service) -> None:
    async with httpx2.AsyncClient(verify=TLS) as client:
        (await client.get(f"{service.url}/work")).raise_for_status()


# --- tenacity and stamina ------------------------------------------------------------------------


def decorated(service: Service) -> None:
    tenacity.retry(**FOUR)(get)(service)


def by_hand_over(service: Service) -> None:
    tenacity.Retrying(**FOUR)(get, service)


def in_blocks(service: Service) -> None:
    for attempt in tenacity.Retrying(**FOUR):
        with attempt:
            get(service)


def decorated_async(service: Service) -> None:
    asyncio.run(tenacity.retry(**FOUR)(aget)(service))


def in_async_blocks(service: Service) -> None:
    async def run() -> None:
        async for attempt in tenacity.AsyncRetrying(**FOUR):
            with attempt:
                await aget(service)

    asyncio.run(run())


STAMINA = {"on": httpx2.HTTPError, "attempts": 4, "wait_initial": BACKOFF, "wait_jitter": 0}


def by_stamina(service: Service) -> None:
    stamina.retry(**STAMINA)(get)(service)


def by_stamina_async(service: Service) -> None:
    asyncio.run(stamina.retry(**STAMINA)(aget)(service))


def by_stamina_blocks(service: Service) -> None:
    for attempt in stamina.retry_context(**STAMINA):
        with attempt:
            get(service)


def by_stamina_caller(service: Service) -> None:
    stamina.RetryingCaller(attempts=4, wait_initial=BACKOFF, wait_jitter=0)(httpx2.HTTPError, get, service)


TENACITY = [decorated, by_hand_over, in_blocks, decorated_async, in_async_blocks]
ALL = [*TENACITY, by_stamina, by_stamina_async, by_stamina_blocks, by_stamina_caller]


@pytest.mark.parametrize("way", ALL)
def test_four_attempts_are_one_call_with_three_retries(calls: Calls, service: Service, way: Any) -> None:
    refuse(service, 9)

    def body() -> None:
        with pytest.raises(httpx2.HTTPStatusError):
            way(service)

    [call] = calls(body)
    assert len(service.requests) == 4
    assert (call.service, call.operation, call.retries, call.outcome) == ("http", "GET /work", 3, "failed")
    assert call.repeated_by == ("tenacity" if way in TENACITY else "stamina")
    assert [attempt.outcome for attempt in call.attempts] == ["failed"] * 4
    first, *later = (attempt.backoff_ns for attempt in call.attempts)
    assert first == 0
    assert all(backoff >= BACKOFF * 1e9 * 0.99 for backoff in later)
    starts = [attempt.start_ns for attempt in call.attempts]
    assert starts == sorted(starts)
    assert call.duration_ns >= 3 * BACKOFF * 1e9


@pytest.mark.parametrize("way", ALL)
def test_a_call_that_recovers_has_succeeded(calls: Calls, service: Service, way: Any) -> None:
    refuse(service, 2)
    [call] = calls(lambda: way(service))
    assert (call.retries, call.outcome, call.attempts[-1].status) == (2, "succeeded", 200)


@pytest.mark.parametrize("way", ALL)
def test_a_call_that_works_at_once_was_not_repeated(calls: Calls, service: Service, way: Any) -> None:
    [call] = calls(lambda: way(service))
    assert (call.retries, call.outcome, call.repeated_by) == (0, "succeeded", "")


@pytest.mark.parametrize("way", ALL)
def test_calls_after_a_retried_one_do_not_belong_to_it(calls: Calls, service: Service, way: Any) -> None:
    refuse(service, 1)

    def body() -> None:
        way(service)
        get(service)
        way(service)

    assert [call.retries for call in calls(body)] == [1, 0, 0]


def test_calls_side_by_side_in_one_attempt_are_calls_of_their_own(calls: Calls, service: Service) -> None:
    refuse(service, 3)

    async def three() -> None:
        async with httpx2.AsyncClient(verify=TLS) as client:
            answers = await asyncio.gather(*(client.get(f"{service.url}/part") for _ in range(3)))
            for answer in answers:
                answer.raise_for_status()

    found = calls(lambda: asyncio.run(tenacity.retry(**FOUR)(three)()))
    assert [(call.retries, call.outcome) for call in found] == [(1, "succeeded")] * 3


def test_different_calls_in_one_attempt_are_told_apart(calls: Calls, service: Service) -> None:
    service.answers = [Answer(), Answer(503), Answer(), Answer(503)]

    def both() -> None:
        httpx.get(f"{service.url}/first", verify=TLS).raise_for_status()
        httpx.get(f"{service.url}/second", verify=TLS).raise_for_status()

    found = calls(lambda: tenacity.retry(**FOUR)(both)())
    assert [(call.operation, call.retries, call.outcome) for call in found] == [
        ("GET /first", 2, "succeeded"),
        ("GET /second", 2, "succeeded"),
    ]


def test_several_calls_of_one_name_in_an_attempt_are_several_calls(calls: Calls, service: Service) -> None:
    service.answers = [Answer(), Answer(), Answer(503)]

    def pages() -> None:
        for page in range(3):
            httpx.get(f"{service.url}/pages", params={"page": page}, verify=TLS).raise_for_status()

    found = calls(lambda: tenacity.retry(**FOUR)(pages)())
    assert [(call.retries, call.outcome) for call in found] == [(1, "succeeded")] * 3


def test_retries_in_retries_are_one_call_counted_once(calls: Calls, service: Service) -> None:
    refuse(service, 5)
    twice = {**FOUR, "stop": tenacity.stop_after_attempt(2)}
    found = calls(lambda: tenacity.retry(**FOUR)(tenacity.retry(**twice)(get))(service))
    assert [(call.retries, call.outcome) for call in found] == [(5, "succeeded")]


def test_time_limits_around_attempts_are_timeouts(calls: Calls, service: Service) -> None:
    service.answers = [Answer(hang="head")] * 4

    @tenacity.retry(**FOUR)
    async def limited() -> None:
        async with httpx2.AsyncClient(verify=TLS) as client, asyncio.timeout(SOON):
            await client.get(service.url)

    def body() -> None:
        with pytest.raises(TimeoutError):
            asyncio.run(limited())

    [call] = calls(body)
    assert (call.retries, call.outcome, call.timed_out) == (3, "timed_out", True)
    assert {attempt.outcome for attempt in call.attempts} == {"timed_out"}


def test_what_is_retried_without_a_known_client_is_a_call_named_after_it(calls: Calls) -> None:
    class Files:
        def write(self) -> None:
            raise OSError(28, "secret text")

    def body() -> None:
        with pytest.raises(OSError, match="secret"):
            tenacity.retry(**FOUR)(Files().write)()

    [call] = calls(body)
    assert (call.service, call.retries, call.outcome) == ("retry", 3, "failed")
    assert call.operation.endswith("Files.write")
    assert {attempt.error for attempt in call.attempts} == {"OSError: No space left on device"}
    assert [attempt.backoff_ns for attempt in call.attempts] == [0] + [int(BACKOFF * 1e9)] * 3


def test_stamina_names_what_it_retries(calls: Calls) -> None:
    def unlucky() -> None:
        raise ValueError

    def body() -> None:
        with pytest.raises(ValueError, match=r"^$"):
            stamina.retry(on=ValueError, attempts=3, wait_initial=0, wait_jitter=0)(unlucky)()

    [call] = calls(body)
    assert (call.retries, call.repeated_by) == (2, "stamina")
    assert call.operation.endswith("unlucky")


def test_a_result_that_is_not_accepted_is_a_failed_attempt(calls: Calls) -> None:
    results = iter([None, None, 1])
    wanted = tenacity.retry(
        retry=tenacity.retry_if_result(lambda value: value is None), wait=tenacity.wait_none()
    )
    [call] = calls(lambda: wanted(lambda: next(results))())
    assert (call.retries, call.outcome) == (2, "succeeded")
    assert [attempt.outcome for attempt in call.attempts] == ["failed", "failed", "succeeded"]


def test_what_is_retried_and_works_at_once_is_no_call(calls: Calls) -> None:
    assert calls(lambda: tenacity.retry(**FOUR)(lambda: 1)()) == []


def test_a_cancelled_retry_passes_the_cancellation_on(calls: Calls, service: Service) -> None:
    service.answers = [Answer(hang="head")]

    async def cancel() -> None:
        task = asyncio.create_task(tenacity.retry(**FOUR)(aget)(service))
        while not service.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    [call] = calls(lambda: asyncio.run(cancel()))
    assert (call.retries, call.outcome, call.timed_out) == (0, "cancelled", False)


def test_tenacity_is_as_it_was_after_the_probe_is_gone() -> None:
    owners = [
        tenacity.BaseRetrying,
        tenacity.AsyncRetrying,
        tenacity.AttemptManager,
        tenacity.RetryCallState,
    ]
    before = [dict(vars(owner)) for owner in owners]
    held = probes.acquire(["retry"])
    assert [dict(vars(owner)) for owner in owners] != before
    probes.release(held)
    for owner, old in zip(owners, before, strict=True):
        new = vars(owner)
        assert old.keys() == new.keys()
        assert all(old[name] is new[name] for name in old)


# --- clients that repeat by themselves -----------------------------------------------------------


@contextlib.contextmanager
def session(**options: Any) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.mount("http://", HTTPAdapter(max_retries=urllib3.Retry(**options)))
        yield made


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_connections_that_a_transport_of_httpx_tries_again(
    calls: Calls, library: Any, asynchronous: bool
) -> None:
    url = f"http://127.0.0.1:{unused_port()}/"
    words = {2: "often", 0: "once"}

    def get(retries: int) -> None:
        with library.Client(transport=library.HTTPTransport(retries=retries), verify=TLS) as client:
            client.get(url + words[retries])

    async def aget(retries: int) -> None:
        transport = library.AsyncHTTPTransport(retries=retries)
        async with library.AsyncClient(transport=transport, verify=TLS) as client:
            await client.get(url + words[retries])

    def body() -> None:
        for retries in words:
            with pytest.raises(library.ConnectError):
                asyncio.run(aget(retries)) if asynchronous else get(retries)

    often, once = calls(body)
    assert (often.retries, often.outcome, often.repeated_by) == (2, "failed", library.__name__)
    assert all(attempt.error.endswith("Connection refused") for attempt in often.attempts)
    assert [attempt.backoff_ns / 1e9 for attempt in often.attempts] == pytest.approx([0, 0, 0.5], abs=0.3)
    assert (once.retries, once.outcome) == (0, "failed")


def test_a_connection_that_httpx_gets_at_the_second_try(
    calls: Calls, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [httpcore.ConnectError("not yet")]
    connect = httpcore.SyncBackend.connect_tcp

    def connect_tcp(self: Any, *args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return connect(self, *args, **kwargs)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)

    def body() -> None:
        with httpx.Client(transport=httpx.HTTPTransport(retries=1, verify=TLS)) as client:
            assert client.get(service.url).text == client.get(service.url).text == "ok"

    first, second = calls(body)
    assert (first.retries, first.outcome, first.attempts[-1].status) == (1, "succeeded", 200)
    assert (second.retries, second.outcome, second.attempts[-1].status) == (0, "succeeded", 200)


def test_retries_of_urllib3_after_refusing_answers(calls: Calls, service: Service) -> None:
    refuse(service, 9)

    def body() -> None:
        options = {"total": 3, "status_forcelist": [503], "backoff_factor": 0.05}
        with session(**options) as client, pytest.raises(requests.exceptions.RetryError):
            client.get(service.url)

    [call] = calls(body)
    assert (call.retries, call.outcome, call.repeated_by) == (3, "failed", "urllib3")
    assert {attempt.error for attempt in call.attempts} == {"HTTP 503"}
    assert call.attempts[3].backoff_ns >= 0.1e9


def test_retries_of_urllib3_after_refused_connections(calls: Calls) -> None:
    def body() -> None:
        with session(total=3) as client, pytest.raises(requests.ConnectionError):
            client.get(f"http://127.0.0.1:{unused_port()}/")

    [call] = calls(body)
    assert (call.retries, call.outcome, call.timed_out) == (3, "failed", False)
    assert {attempt.error for attempt in call.attempts} == {"urllib3.NewConnectionError: Connection refused"}


def test_retries_of_urllib3_that_time_out_and_recover(calls: Calls, service: Service) -> None:
    service.answers = [Answer(hang="head")] * 2

    def body() -> None:
        with session(total=3) as client:
            assert client.get(service.url, timeout=SOON).text == "ok"

    [call] = calls(body)
    assert [attempt.outcome for attempt in call.attempts] == ["timed_out", "timed_out", "succeeded"]
    assert (call.retries, call.outcome, call.timed_out) == (2, "succeeded", True)


def test_retries_of_urllib3_in_retries_of_tenacity_are_one_call(calls: Calls, service: Service) -> None:
    refuse(service, 5)

    def body() -> None:
        with session(total=1, status_forcelist=[503]) as client:
            tenacity.retry(**FOUR)(client.get)(service.url)

    [call] = calls(body)
    assert (call.retries, call.outcome, len(service.requests)) == (5, "succeeded", 6)


# --- loops written by hand -----------------------------------------------------------------------


def loop(service: Service, times: int = 4) -> int:
    for _ in range(times):
        try:
            response = httpx2.get(f"{service.url}/work", timeout=SOON, verify=TLS)
        except httpx2.HTTPError:
            continue
        if response.status_code < 500:
            return response.status_code
    return 0


def once(service: Service) -> int:
    return httpx2.get(f"{service.url}/work", timeout=SOON, verify=TLS).status_code


def loop_around_a_function(service: Service) -> int:
    while (status := once(service)) >= 500:
        pass
    return status


def again_in_the_handler(service: Service) -> None:
    def attempt(left: int) -> None:
        try:
            httpx2.get(f"{service.url}/work", verify=TLS).raise_for_status()
        except httpx2.HTTPError:
            if left:
                attempt(left - 1)

    attempt(3)


def async_loop(service: Service) -> int:
    async def run() -> int:
        async with httpx2.AsyncClient(verify=TLS) as client:
            for _ in range(4):
                with contextlib.suppress(TimeoutError):
                    response = await asyncio.wait_for(client.get(f"{service.url}/work"), SOON)
                    if response.status_code < 500:
                        return response.status_code
                await asyncio.sleep(BACKOFF)
        return 0

    return asyncio.run(run())


def async_loop_around_a_function(service: Service) -> int:
    async def one() -> int:
        async with httpx2.AsyncClient(verify=TLS) as client:
            return (await client.get(f"{service.url}/work")).status_code

    async def run() -> int:
        for _ in range(4):
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(one(), SOON)
        return 0

    return asyncio.run(run())


def items(service: Service) -> None:
    for item in range(4):
        httpx2.post(f"{service.url}/work", content=str(item), verify=TLS)


def items_in_the_query(service: Service) -> None:
    for item in range(4):
        httpx2.get(f"{service.url}/work?item={item}", verify=TLS)


@pytest.mark.parametrize("way", [loop, loop_around_a_function, async_loop])
def test_a_loop_written_by_hand_is_one_call(calls: Calls, service: Service, way: Any) -> None:
    refuse(service, 3)
    [call] = calls(lambda: way(service))
    assert (call.retries, call.outcome, call.repeated_by) == (3, "succeeded", "loop")
    assert all(attempt.backoff_ns > 0 for attempt in call.attempts[1:])


@pytest.mark.parametrize("way", [loop, async_loop, async_loop_around_a_function])
def test_a_loop_that_gives_up_after_timeouts(calls: Calls, service: Service, way: Any) -> None:
    service.answers = [Answer(hang="head")] * 4
    [call] = calls(lambda: way(service))
    assert (call.retries, call.outcome, call.timed_out) == (3, "timed_out", True)
    assert len(service.requests) == 4


@pytest.mark.parametrize("way", [items, items_in_the_query])
def test_a_loop_over_different_things_is_no_retry_even_if_they_fail(
    calls: Calls, service: Service, way: Any
) -> None:
    refuse(service, 4)
    found = calls(lambda: way(service))
    assert [(call.retries, call.repeated_by, call.outcome) for call in found] == [(0, "", "failed")] * 4


def test_the_same_request_again_after_it_worked_is_no_retry(calls: Calls, service: Service) -> None:
    def poll() -> None:
        for _ in range(4):
            httpx2.get(f"{service.url}/work", verify=TLS)

    assert [call.retries for call in calls(poll)] == [0] * 4


def test_the_same_failing_request_from_two_places_is_two_calls(calls: Calls, service: Service) -> None:
    refuse(service, 2)

    def body() -> None:
        httpx2.get(f"{service.url}/work", verify=TLS)
        httpx2.get(f"{service.url}/work", verify=TLS)

    assert [call.retries for call in calls(body)] == [0, 0]


def test_the_same_failing_request_by_two_tasks_is_two_calls(calls: Calls, service: Service) -> None:
    refuse(service, 2)

    async def run() -> None:
        async def one(name: str) -> None:
            async with httpx2.AsyncClient(verify=TLS) as client:
                await client.get(f"{service.url}/work")

        await asyncio.gather(one("a"), one("b"))

    found = calls(lambda: asyncio.run(run()))
    assert sum(len(call.attempts) for call in found) == 2


def test_the_analysis_is_the_same_without_recorded_calls(
    record: Callable[..., Trace], service: Service
) -> None:
    refuse(service, 3)

    def body() -> None:
        loop(service)
        tenacity.retry(**FOUR)(get)(service)

    trace = record(body)
    assert [(call.retries, call.repeated_by) for call in external.find(trace)] == [(3, "loop"), (0, "")]
