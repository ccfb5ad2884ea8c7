"""The same question again and again."""

from __future__ import annotations

from functools import cache

from sqlalchemy import func, select, text

from tests.twins.queries.cases import Expected, QueryCase
from tests.twins.queries.library import Author, Book, Library, Publisher

_AGAIN = Expected("repeated_query", "statement")


def total_in_the_loop(library: Library) -> list[float]:
    with library.session() as session:
        shares = []
        for number in range(6):
            total = session.scalars(select(func.count()).select_from(Book)).one()
            shares.append(number / total)
        return shares


def total_before_the_loop(library: Library) -> list[float]:
    with library.session() as session:
        total = session.scalars(select(func.count()).select_from(Book)).one()
        return [number / total for number in range(6)]


def setting_looked_up_each_time(library: Library) -> int:
    def setting() -> int:
        statement = text("SELECT visits FROM authors WHERE id = 1")
        return session.execute(statement).scalar_one()

    with library.session() as session:
        return sum(setting() + number for number in range(6))


def setting_looked_up_once(library: Library) -> int:
    @cache
    def setting() -> int:
        statement = text("SELECT visits FROM authors WHERE id = 1")
        return session.execute(statement).scalar_one()

    with library.session() as session:
        return sum(setting() + number for number in range(6))


def whole_table_each_time(library: Library) -> int:
    with library.session() as session:
        found = 0
        for title in ("title 1.0", "title 2.0", "title 3.0", "title 4.0", "nothing"):
            found += any(book.title == title for book in session.scalars(select(Book)))
        return found


def whole_table_once(library: Library) -> int:
    with library.session() as session:
        titles = {book.title for book in session.scalars(select(Book))}
        return sum(
            title in titles for title in ("title 1.0", "title 2.0", "title 3.0", "title 4.0", "nothing")
        )


def asked_in_many_places(library: Library) -> int:
    """Five places in the code ask the same of the same author."""
    with library.session() as session:
        statement = select(Author.visits).where(Author.id == 3)
        first = session.scalars(statement).one()
        second = session.scalars(statement).one()
        third = session.scalars(statement).one()
        fourth = session.scalars(statement).one()
        return first + second + third + fourth + session.scalars(statement).one()


def asked_in_one_place(library: Library) -> int:
    with library.session() as session:
        return 5 * session.scalars(select(Author.visits).where(Author.id == 3)).one()


def driver_sql_each_time(library: Library) -> list[str]:
    with library.engine.connect() as connection:
        names = []
        for number in range(5):
            rows = connection.exec_driver_sql("SELECT name FROM publishers ORDER BY id").scalars().all()
            names.append(rows[number])
        return names


def driver_sql_once(library: Library) -> list[str]:
    with library.session() as session:
        return list(session.scalars(select(Publisher.name).order_by(Publisher.id).limit(5)))


CASES = [
    QueryCase("repeated_total", total_in_the_loop, total_before_the_loop, _AGAIN),
    QueryCase("repeated_setting", setting_looked_up_each_time, setting_looked_up_once, _AGAIN),
    QueryCase("repeated_whole_table", whole_table_each_time, whole_table_once, _AGAIN),
    QueryCase("repeated_in_many_places", asked_in_many_places, asked_in_one_place, _AGAIN),
    QueryCase("repeated_driver_sql", driver_sql_each_time, driver_sql_once, _AGAIN),
]
