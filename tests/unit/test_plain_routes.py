"""Routes that are regular expressions are shown as one would write them without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyscope.probes.addresses import plain_route


@pytest.mark.parametrize(
    ("route", "plain"),
    [
        ("users/<int:pk>/", "users/<int:pk>/"),
        ("files/(draft)/", "files/(draft)/"),
        ("^users/(?P<pk>[^/.]+)/$", "users/<pk>/"),
        (r"^users/(?P<pk>[^/.]+)\.(?P<format>[a-z0-9]+)/?$", "users/<pk>.<format>/"),
        ("api/^things/(?P<n>[)(]+)/$", "api/things/<n>/"),
        (r"^(?:page-(?P<page>\d+)/)?$", "page-<page>/"),
        (r"^a/(\d+)/b\Z", "a/<var>/b"),
        (r"^users/\d+/$", "users/<var>/"),
        ("^[0-9]{4}/(?P<month>[0-9]{2})/$", "<var>/<month>/"),
        ("^(?:a|b)/c$", "<var>/c"),
        ("^[]x]/(?P<a>(x|y(z)))/c$", "<var>/<a>/c"),
        ("^x(?=y)y$", "xy"),
        ("^$", ""),
        ("", ""),
    ],
)
def test_what_an_expression_becomes(route: str, plain: str) -> None:
    assert plain_route(route) == plain


@given(st.text("ab/^$()[]{}?P<>:*+", max_size=30))
def test_of_no_expression_is_anything_left_that_is_not_escaped(route: str) -> None:
    assert not set(plain_route(f"^{route}")) & set("^$?*+([")
