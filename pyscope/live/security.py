"""Who may see the dashboard: the token and its cookie, the hosts it answers to, the origin of requests.

In the order in which a request is judged:

* 403 where the Host header names none of the allowed hosts: a page elsewhere whose name was made to point here would
  be of the same origin (DNS rebinding).
* a right token in the query is answered with the cookie and a redirect to the same place without it: it stays in no
  history, log or referrer.
* 401 without the cookie or `Authorization: Bearer <token>`. All comparisons take constant time.
* 403 for a WebSocket or a control from another origin. Without an Origin header, which no browser leaves out there,
  only the bearer token counts.
* 403 for a control without the right X-PyScope-CSRF header, or in read-only mode.

Where there is no token, everything is answered with 404.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

__all__ = ["CONTENT_POLICY", "HEADERS", "Access", "new_token"]

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
CSRF_HEADER = "x-pyscope-csrf"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def new_token() -> str:
    """A token that nobody guesses: 256 bits."""
    return secrets.token_urlsafe(32)


class Access:
    """The rules of one dashboard. `hosts`: names beside those of loopback under which it may be reached, no ports."""

    def __init__(self, token: str, hosts: Iterable[str] = (), *, read_only: bool = False) -> None:
        self._token = token
        self.read_only = read_only
        self._hosts = {*_LOOPBACK, *(host.strip("[]").lower() for host in hosts)}
        # Cookies are shared by all ports of a host: each token has a name of its own.
        self.cookie_name = f"pyscope-{self._derived('name')[:12]}"
        self._cookie = self._derived("cookie")
        self.csrf = self._derived("csrf")

    def _derived(self, purpose: str) -> str:
        """A secret that follows from the token, and from which the token does not follow."""
        key = self._token.encode("utf-8", "surrogatepass")
        return hmac.new(key, f"pyscope live {purpose}".encode(), hashlib.sha256).hexdigest()

    def host_allowed(self, header: str) -> bool:
        """Whether a Host header names this dashboard."""
        name = _host_of(header)
        return name is not None and name in self._hosts

    def right_token(self, given: str) -> bool:
        """Whether this is the token."""
        return _equal(given, self._token)

    def bearer(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the token in its Authorization header."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.right_token(given.strip())

    def has_cookie(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the cookie."""
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name and _equal(value, self._cookie):
                return True
        return False

    def same_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether a page of this dashboard sends the request, as far as its Origin header tells."""
        origin = headers.get("origin", "")
        try:
            parts = urlsplit(origin)
            host, netloc = parts.hostname, parts.netloc
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or host is None:
            return False
        if netloc.lower() == headers.get("host", "").lower():
            return True
        # Behind a proxy the Host header may be the proxy's own.
        return host.lower() in self._hosts and host.lower() not in _LOOPBACK

    def right_csrf(self, headers: Mapping[str, str]) -> bool:
        """Whether a control comes from a page that was told the secret."""
        return _equal(headers.get(CSRF_HEADER, ""), self.csrf)

    def cookie_header(self, path: str, *, secure: bool) -> str:
        """The Set-Cookie header."""
        cookie: SimpleCookie = SimpleCookie()
        cookie[self.cookie_name] = self._cookie
        morsel = cookie[self.cookie_name]
        morsel["httponly"], morsel["samesite"], morsel["path"] = True, "Strict", path
        if secure:
            morsel["secure"] = True
        return morsel.OutputString()


def token_of_query(query: str) -> tuple[str | None, str]:
    """The token in a query string, None if there is none, and the query without it."""
    pairs = parse_qsl(query, keep_blank_values=True)
    found = [value for name, value in pairs if name == "token"]
    rest = urlencode([pair for pair in pairs if pair[0] != "token"])
    return (found[-1] if found else None), rest


def is_loopback(host: str) -> bool:
    """Whether an address or name to bind to is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host_of(header: str) -> str | None:
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # ValueError where it is none
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment or not parts.hostname:
        return None
    return parts.hostname.lower()


def _equal(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))
