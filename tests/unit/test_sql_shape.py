"""Shapes of statements: table, key, what is set, compared and computed; of SQLAlchemy's trees and of texts."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from pyscope.events.sql import Operation
from pyscope.probes.sql.shape import Literal, Shape, listed, of_compiled, of_text, value_of

accounts = Table(
    "accounts",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("owner", String),
    Column("balance", Integer),
    Column("touched", Integer, onupdate=lambda: 7),
)
seats = Table(
    "seats", MetaData(), Column("row", Integer, primary_key=True), Column("place", Integer, primary_key=True)
)
_engine = create_engine("sqlite://")


def shape(statement: Any, **options: Any) -> Shape:
    return of_compiled(statement.compile(_engine, **options))


def test_a_select_by_key_names_one_row() -> None:
    found = shape(select(accounts.c.balance).where(accounts.c.id == 5))
    assert (found.operation, found.table, found.key) == (Operation.SELECT, "accounts", ("id_1",))
    assert found.exact
    assert not found.locked
    assert found.condition == ("id",)


def test_a_key_of_two_columns_needs_both() -> None:
    both = shape(select(seats).where(seats.c.row == 1, seats.c.place == 2))
    assert both.key == ("row_1", "place_1")
    assert shape(select(seats).where(seats.c.row == 1)).key is None


def test_an_or_names_no_row() -> None:
    found = shape(select(accounts).where((accounts.c.id == 1) | (accounts.c.owner == "x")))
    assert found.key is None
    assert not found.exact
    assert found.condition == ("id", "owner")


def test_locks_pages_and_functions_are_seen() -> None:
    assert shape(select(accounts).where(accounts.c.id == 1).with_for_update()).locked
    assert shape(select(accounts).offset(5)).paged
    assert shape(select(accounts).where(accounts.c.id > 5).limit(5)).paged
    assert not shape(select(accounts).where(accounts.c.owner == "x").limit(1)).paged
    assert shape(select(func.count()).select_from(accounts)).aggregate
    assert not shape(select(accounts.c.id)).aggregate


def test_an_update_tells_values_from_expressions_and_guards() -> None:
    conditions = accounts.c.id == 1, accounts.c.balance >= 10, accounts.c.owner != "y"
    statement = update(accounts).where(*conditions)
    found = shape(statement.values(balance=accounts.c.balance - 10, owner="x"))
    assert found.sets == ("owner",)
    assert found.computed == ("balance", "touched")
    assert found.guards == ("owner",)  # a range does not say that the balance is still the same
    assert found.key == ("id_1",)


def test_an_update_of_columns_that_are_given_at_execution() -> None:
    found = shape(update(accounts).where(accounts.c.id == 1), column_keys=["balance"])
    assert found.sets == ("balance",)
    assert found.computed == ("touched",)


def test_a_list_of_keys_is_found_in_the_parameters() -> None:
    found = shape(update(accounts).where(accounts.c.id.in_([3, 4])).values(owner="x"))
    assert found.keys == "id_1"
    assert listed(found.keys, {"id_1_1": 3, "id_1_2": 4, "owner": "x"}) == [3, 4]
    assert listed(found.keys, {"id_1": [3, 4]}) == [3, 4]


def test_deletes_and_inserts() -> None:
    assert shape(delete(accounts).where(accounts.c.id == 1)).key == ("id_1",)
    assert shape(insert(accounts)).key == ("id",)
    upsert = sqlite_insert(accounts).values(id=1).on_conflict_do_nothing()
    assert shape(upsert).key is None


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "SELECT balance FROM wallets WHERE id = 5",
            {"key": (Literal(5),), "table": "wallets", "exact": True},
        ),
        (
            "select * from wallets w where w.id = :key and w.owner = 'x'",
            {"key": ("key",), "guards": ("owner",)},
        ),
        ("SELECT * FROM wallets WHERE id = %s FOR UPDATE", {"key": (0,), "locked": True}),
        ("SELECT * FROM wallets WHERE id = $2 AND owner = $1", {"key": (1,)}),
        ("SELECT count(*) FROM wallets WHERE owner = ?", {"aggregate": True, "exact": True}),
        (
            'SELECT COUNT(*) FROM "w" WHERE ("w"."open" AND NOT "w"."hidden" AND "w"."owner" = %s)',
            {
                "equalities": (("hidden", Literal(False)), ("open", Literal(True)), ("owner", 0)),
                "exact": True,
            },
        ),
        ("SELECT * FROM wallets WHERE NOT EXISTS(x)", {"equalities": (), "exact": False}),
        ("SELECT * FROM wallets WHERE id = 1 OR id = 2", {"key": None, "exact": False}),
        ("SELECT * FROM wallets ORDER BY id LIMIT 5 OFFSET 10", {"paged": True}),
        (
            "UPDATE wallets SET balance = balance - %(amount)s, owner = %(owner)s WHERE id = %(key)s AND balance > 0",
            {"key": ("key",), "sets": ("owner",), "computed": ("balance",), "guards": ()},
        ),
        ("UPDATE wallets SET touched = now() WHERE id = 1", {"sets": (), "computed": ("touched",)}),
        ("DELETE FROM wallets WHERE id = ?", {"operation": Operation.DELETE, "key": (0,)}),
        ("INSERT INTO wallets (id, owner) VALUES (?, 'x')", {"values": (("id", 0), ("owner", Literal("x")))}),
        ("WITH x AS (SELECT 1) SELECT * FROM x", {"operation": Operation.OTHER, "table": ""}),
        (
            "SELECT a.id FROM a JOIN b ON a.id = b.id WHERE a.id = 5",
            {"operation": Operation.SELECT, "table": ""},
        ),
        ("  /* hint */ SELECT 1", {"operation": Operation.SELECT, "table": ""}),
        ("", {"operation": Operation.OTHER, "table": ""}),
        ("SELECT * FROM wallets WHERE note = 'a = 1 AND id = 2'", {"key": (Literal("a = 1 AND id = 2"),)}),
    ],
)
def test_texts(statement: str, expected: dict[str, object]) -> None:
    found = of_text(statement)
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_literal_is_its_own_value() -> None:
    assert value_of(Literal(5), {}) == 5
    assert value_of("a", {"a": 1}) == 1
    assert value_of(1, (7, 8)) == 8
    with pytest.raises(LookupError):
        value_of("missing", {})


def test_a_tree_that_is_not_known_is_read_as_text() -> None:
    union = select(accounts.c.id).union(select(accounts.c.balance))
    assert shape(union).operation is Operation.SELECT
    assert shape(union).table == ""
