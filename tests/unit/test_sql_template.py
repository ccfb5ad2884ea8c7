"""Statements without their values: nothing of a value is left, equal kinds are equal texts, no foreign code runs."""

from __future__ import annotations

import uuid

import pytest

from pyscope.probes.sql.template import fingerprint, mixed, plain, template


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT a1 FROM t\n  WHERE x = 5", "SELECT a1 FROM t WHERE x = ?"),
        ("SELECT 'it''s' , -1.5e3, 0xFF", "SELECT ? , -?, ?"),
        ("SELECT * FROM t WHERE x = %(pk_1)s::INTEGER", "SELECT * FROM t WHERE x = ?::INTEGER"),
        ("SELECT * FROM t WHERE x = $1::int AND y = :name", "SELECT * FROM t WHERE x = ?::int AND y = ?"),
        ("SELECT * FROM t WHERE x IN (?, ?, ?)", "SELECT * FROM t WHERE x IN (?, …)"),
        ("SELECT * FROM t WHERE x IN (1, 2)", "SELECT * FROM t WHERE x IN (?, …)"),
        ("SELECT * FROM t WHERE x IN (?)", "SELECT * FROM t WHERE x IN (?)"),
        ("INSERT INTO t (a, b) VALUES (?, ?), (?, ?)", "INSERT INTO t (a, b) VALUES (?, …), …"),
        ('SELECT "Na me", t_1.c2 FROM "t 1" t_1', 'SELECT "Na me", t_1.c2 FROM "t 1" t_1'),
        ("SELECT E'a\\'b', $$secret$$, $x$secret$x$", "SELECT ?, ?, ?"),
        ("SELECT 1 -- secret\n /* secret */ FROM t", "SELECT ? FROM t"),
        ("SELECT now()::date", "SELECT now()::date"),
        ("SELECT 'cut off: secret", "SELECT ?"),
        ("SELECT 'C:\\', 'secret'", "SELECT ?, ?"),
        ("", ""),
    ],
)
def test_values_are_taken_out(statement: str, expected: str) -> None:
    assert template(statement) == expected


def test_strings_of_mysql_may_stand_in_double_quotes() -> None:
    assert (
        template('SELECT `name` FROM t WHERE x = "sec\\"ret"', "mysql") == "SELECT `name` FROM t WHERE x = ?"
    )


def test_templates_are_bounded() -> None:
    assert len(template("SELECT " + ", ".join(f"column_{number}x" for number in range(10_000)))) == 2000
    assert template("SELECT " + ", ".join(f"a{number}" for number in range(10_000))).endswith("…")


def test_a_fingerprint_tells_values_apart_and_is_never_zero() -> None:
    one = fingerprint("SELECT ?", (1,))
    assert one == fingerprint("SELECT ?", (1,))
    assert one == fingerprint("SELECT ?", [1])
    assert one != fingerprint("SELECT ?", (2,))
    assert one != fingerprint("SELECT  ?", (1,))
    assert fingerprint("SELECT ?", {"a": 1}) != fingerprint("SELECT ?", {"a": 2})
    assert fingerprint("SELECT ?", ("x" * 10_000,)) != fingerprint("SELECT ?", ("y" * 10_000,))
    assert fingerprint("SELECT 1", None)
    assert mixed(0)


def test_a_fingerprint_does_not_show_the_value() -> None:
    assert fingerprint("", (5,)) != hash((5,))
    assert abs(mixed(5)) > 1_000_000


def test_values_of_foreign_types_are_not_asked() -> None:
    class Meta(type):
        def __hash__(cls) -> int:
            raise AssertionError("asked")

    class Hostile(metaclass=Meta):
        def __hash__(self) -> int:
            raise AssertionError("asked")

        def __eq__(self, other: object) -> bool:
            raise AssertionError("asked")

    value = Hostile()
    assert plain(value) is None
    assert fingerprint("SELECT ?", (value,)) == fingerprint("SELECT ?", (value,))
    assert fingerprint("SELECT ?", (value,)) != fingerprint("SELECT ?", (Hostile(),))
    assert fingerprint("SELECT ?", ([value, 1],)) == fingerprint("SELECT ?", ([value, 1],))


def test_a_uuid_is_its_text() -> None:
    key = uuid.uuid4()
    assert plain(key) == str(key)


def test_a_list_that_holds_itself_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert fingerprint("SELECT ?", (loop,))
