"""HTTP clients: one probe, an adapter a client.

An adapter is a module here with one function, and a row in `HTTPProbe.adapters`::

    def patch(patches: Patches, library: ModuleType) -> None

It is called once `library` is imported, and replaces with `patches.replace(owner, name, make)` the place
where the client sends one request: below its own retries and redirects, so that each sending is an attempt of
its own. The replacement begins an attempt, does what the original does, and tells the attempt how it ended::

    def make(original):
        @functools.wraps(original)
        def send(self, request):
            attempt = SILENT
            if patches.on:
                attempt = sending("client", request.method, request.host, request.port, request.path)
            try:
                response = original(self, request)
            except BaseException as error:
                attempt.failed(error)
                raise
            attempt.succeeded(response.status)
            return response
        return send

A client that reads bodies later calls `attempt.answered(status)` there, and `succeeded` or `failed` when the
body ends. A client that repeats by itself passes `chain`, the first attempt's id, so that they are one call.
What was done to the library is undone by `patches`; bodies, headers and queries are not looked at.
"""

from __future__ import annotations

from typing import ClassVar

from pyscope.probes.addresses import operation, peer
from pyscope.probes.attempts import SILENT, Attempt, begin, fingerprint
from pyscope.probes.clients import ClientProbe, fault

__all__ = ["HTTPProbe", "sending"]


class HTTPProbe(ClientProbe):
    """Watches the HTTP clients that the program imports."""

    name = "http"
    extra = "test"
    adapters: ClassVar = {
        "aiohttp": "pyscope.probes.http.aiohttp",
        "httpcore": "pyscope.probes.http.httpcore",
        "httpcore2": "pyscope.probes.http.httpcore",
        "httpx": "pyscope.probes.http.httpx",
        "httpx2": "pyscope.probes.http.httpx",
        "urllib3": "pyscope.probes.http.urllib3",
        "urllib.request": "pyscope.probes.http.urllib",
    }


def sending(
    client: str,
    method: str,
    host: str,
    port: int | None,
    path: str,
    *,
    scheme: str = "http",
    query: str | bytes = "",
    body: object = b"",
    timeout: float | None = None,
    blocking: bool = True,
    chain: int = 0,
) -> Attempt:
    """Begins the attempt to send one request; never raises.

    `query` and `body` only tell whether a later request is the same; nothing of them is recorded.
    """
    try:
        return begin(
            "http",
            operation(method, path),
            peer(host, port, scheme),
            client,
            chain=chain,
            blocking=blocking,
            timeout=timeout,
            same=fingerprint(method, path, query, b"" if body is None else body),
        )
    except Exception:
        fault("http")
        return SILENT
