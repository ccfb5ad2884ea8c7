"""Drives a load with Locust, headless and as a library; this process belongs to it."""

import argparse
import json
import logging
import random
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import gevent
import httpx2

from taskflow.load.client import REQUEST_TIMEOUT_SECONDS, LoadEnvironment
from taskflow.load.plan import LoadError, LoadPlan, add_arguments
from taskflow.load.report import LoadReport
from taskflow.load.run import LoadRun
from taskflow.load.scenarios import CLIENTS

QUEUES: Final = 4
SHARED: Final = 4
INTERRUPTED_SECONDS: Final = 5.0
USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Drive one load and print its report; the exit status is 0, 1 after errors, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m taskflow load")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    # Locust's advice on spawn rates is not for the users of a fixed scenario.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    try:
        report = run(LoadPlan.from_options(options))
    except (LoadError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    except KeyboardInterrupt:  # before the first request of a client
        return INTERRUPTED
    sys.stdout.write((json.dumps(report.as_dict(), indent=2) if options.json else report.as_table()) + "\n")
    return 1 if report.errors else 0


def run(plan: LoadPlan) -> LoadReport:
    """Drive `plan` to its end, or until SIGINT or SIGTERM; the report is of what was done until then."""
    plan.check()
    if plan.ledger is not None:
        plan.ledger.touch()  # an unusable path is better known before the load
    random.seed(plan.random_seed)  # by which Locust chooses what a client does next
    load = _prepare(plan)
    environment = LoadEnvironment(load, CLIENTS[plan.scenario])
    _count(environment)
    runner = environment.create_local_runner()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, load.ending.set)

    runner.start(plan.clients, spawn_rate=plan.clients)
    runner.spawning_greenlet.join()
    everyone = gevent.spawn(gevent.joinall, list(runner.user_greenlets))
    began = time.perf_counter()
    load.gate.set()
    gevent.wait([everyone, load.ending], timeout=plan.seconds, count=1)
    interrupted = load.ending.is_set()
    load.ending.set()
    # Whoever has a request out may finish it; nobody begins another.
    everyone.join(INTERRUPTED_SECONDS if interrupted else REQUEST_TIMEOUT_SECONDS)
    took = time.perf_counter() - began
    runner.quit()

    if plan.ledger is not None:
        load.ledger.write(plan.ledger)
    return load.tally.report(plan.scenario, plan.clients, took)


def _prepare(plan: LoadPlan) -> LoadRun:
    """The load with the identities it works on; LoadError when the service is away or empty."""
    # trust_env off: a proxy set for the outside world must not see loopback traffic.
    with httpx2.Client(
        base_url=plan.url.rstrip("/"), timeout=REQUEST_TIMEOUT_SECONDS, trust_env=False
    ) as service:
        projects, users = _identities(service, "/projects"), _identities(service, "/users")
        load = LoadRun(plan, projects, users)
        for number in range(1, QUEUES + 1):
            body = {"name": f"{load.ledger.title}/{number}", "owner_id": users[0]}
            load.queues.append(_asked(service, "POST", "/projects", json=body)["id"])
        for number in range(SHARED if plan.scenario == "chaos" else 0):
            body = {
                "project_id": projects[number % len(projects)],
                "title": load.ledger.title,
                "priority": "urgent",
            }
            load.shared.append(_asked(service, "POST", "/tasks", json=body)["id"])
        load.ledger.created += load.shared
    return load


def _identities(service: httpx2.Client, path: str) -> list[int]:
    found = [item["id"] for item in _asked(service, "GET", path, params={"limit": 200})["items"]]
    if not found:
        raise LoadError(
            f"the service has no {path.strip('/')}; run `python -m taskflow seed` on its database first"
        )
    return found


def _asked(service: httpx2.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = service.request(method, path, **options).raise_for_status().json()
    except (httpx2.HTTPError, ValueError) as error:
        raise LoadError(f"no TaskFlow answers at {service.base_url}: {error}") from error
    return answer


def _count(environment: LoadEnvironment) -> None:
    """Let the tally hear of every request, of defects in the scenarios, and of a driver short of CPU."""
    tally = environment.load.tally

    def of_request(name: str, response_time: float, exception: object = None, **_: object) -> None:
        tally.add(name, response_time, str(exception) if exception else None)

    def of_defect(exception: BaseException, **_: object) -> None:
        tally.add_error("driver", f"{type(exception).__name__}: {exception}")

    def of_saturation(**_: object) -> None:
        tally.driver_saturated = True

    environment.events.request.add_listener(of_request)
    environment.events.user_error.add_listener(of_defect)
    environment.events.cpu_warning.add_listener(of_saturation)
