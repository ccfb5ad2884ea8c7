"""Statements of the program's own in a loop: by key, by value, written by hand."""

from __future__ import annotations

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import Session, selectinload

from tests.twins.queries.cases import one_by_one
from tests.twins.queries.library import AUTHORS, Author, Book, Library, Publisher

KEYS = range(1, AUTHORS + 1)


def get_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        return [session.get_one(Author, key).name for key in KEYS]


def get_at_once(library: Library) -> list[str]:
    with library.session() as session:
        found = {
            author.id: author.name for author in session.scalars(select(Author).where(Author.id.in_(KEYS)))
        }
        return [found[key] for key in KEYS]


def _author_name(session: Session, key: int) -> str:
    author = session.get(Author, key)
    return author.name if author else "?"


def get_in_a_function_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        names = []
        for key in KEYS:
            names.append(_author_name(session, key))
        return names


def get_in_a_function_at_once(library: Library) -> list[str]:
    with library.session() as session:
        held = session.scalars(select(Author).where(Author.id.in_(KEYS))).all()
        names = [_author_name(session, key) for key in KEYS]  # get() finds them in the session
        return names if held else []


def session_each_one_by_one(library: Library) -> list[str]:
    names = []
    for key in KEYS:
        with library.session() as session:
            names.append(session.get_one(Author, key).name)
    return names


def session_each_at_once(library: Library) -> list[str]:
    with library.session() as session:
        return list(session.scalars(select(Author.name).where(Author.id.in_(KEYS)).order_by(Author.id)))


def select_by_key_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        names = []
        for key in KEYS:
            names.append(session.scalars(select(Author).where(Author.id == key)).one().name)
        return names


def select_by_key_at_once(library: Library) -> list[str]:
    with library.session() as session:
        authors = session.scalars(select(Author).where(Author.id.in_(list(KEYS))).order_by(Author.id))
        return [author.name for author in authors]


def children_by_statement_one_by_one(library: Library) -> list[int]:
    """What a lazy relationship would have done, by hand."""
    with library.session() as session:
        counts = []
        for author in session.scalars(select(Author).order_by(Author.id)).all():
            books = session.scalars(select(Book).where(Book.author_id == author.id)).all()
            counts.append(len(books))
        return counts


def children_by_statement_at_once(library: Library) -> list[int]:
    with library.session() as session:
        authors = session.scalars(
            select(Author).options(selectinload(Author.books)).order_by(Author.id)
        ).all()
        return [len(author.books) for author in authors]


def legacy_filter_by_one_by_one(library: Library) -> list[int]:
    with library.session() as session:
        return [len(session.query(Book).filter_by(author_id=key).all()) for key in KEYS]


def legacy_filter_by_at_once(library: Library) -> list[int]:
    with library.session() as session:
        found = [book.author_id for book in session.query(Book).filter(Book.author_id.in_(KEYS))]
        return [found.count(key) for key in KEYS]


def count_one_by_one(library: Library) -> list[int]:
    with library.session() as session:
        counted = select(func.count()).select_from(Book)
        return [session.scalars(counted.where(Book.author_id == key)).one() for key in KEYS]


def count_at_once(library: Library) -> list[int]:
    with library.session() as session:
        statement = select(Book.author_id, func.count()).group_by(Book.author_id)
        counts = dict(session.execute(statement).all())
        return [counts[key] for key in KEYS]


def dynamic_relationship_one_by_one(library: Library) -> list[int]:
    with library.session() as session:
        return [author.shelf.count() for author in session.scalars(select(Author).order_by(Author.id)).all()]


def dynamic_relationship_at_once(library: Library) -> list[int]:
    with library.session() as session:
        statement = select(func.count(Book.id)).join(Book.author).group_by(Author.id).order_by(Author.id)
        return list(session.scalars(statement))


def write_only_relationship_one_by_one(library: Library) -> list[str | None]:
    """The first of each: a query with a limit, for each parent."""
    with library.session() as session:
        firsts = []
        for author in session.scalars(select(Author).order_by(Author.id)).all():
            first = session.scalars(author.catalogue.select().order_by(Book.id).limit(1)).first()
            firsts.append(first.title if first else None)
        return firsts


def write_only_relationship_at_once(library: Library) -> list[str | None]:
    with library.session() as session:
        first = select(func.min(Book.id)).group_by(Book.author_id)
        return list(session.scalars(select(Book.title).where(Book.id.in_(first)).order_by(Book.author_id)))


def exists_one_by_one(library: Library) -> int:
    with library.session() as session:
        known = 0
        for name in [f"author {key}" for key in KEYS] + ["nobody"]:
            known += session.scalars(select(Author.id).where(Author.name == name)).first() is not None
        return known


def exists_at_once(library: Library) -> int:
    names = [f"author {key}" for key in KEYS] + ["nobody"]
    with library.session() as session:
        return len(set(session.scalars(select(Author.name).where(Author.name.in_(names)))))


def core_one_by_one(library: Library) -> list[str]:
    books = Book.__table__
    with library.engine.connect() as connection:
        titles = []
        for key in KEYS:
            titles.append(connection.execute(select(books.c.title).where(books.c.id == key)).scalar_one())
        return titles


def core_at_once(library: Library) -> list[str]:
    books = Book.__table__
    with library.engine.connect() as connection:
        statement = select(books.c.title).where(books.c.id.in_(KEYS)).order_by(books.c.id)
        return list(connection.execute(statement).scalars())


def text_one_by_one(library: Library) -> list[str]:
    with library.engine.connect() as connection:
        statement = text("SELECT name FROM publishers WHERE id = :key")
        return [connection.execute(statement, {"key": key}).scalar_one() for key in KEYS]


def text_at_once(library: Library) -> list[str]:
    with library.engine.connect() as connection:
        statement = text("SELECT name FROM publishers WHERE id IN :keys ORDER BY id")
        bound = statement.bindparams(bindparam("keys", list(KEYS), expanding=True))
        return list(connection.execute(bound).scalars())


def driver_sql_one_by_one(library: Library) -> list[str]:
    with library.engine.connect() as connection:
        sql = "SELECT title FROM books WHERE id = ?"
        return [connection.exec_driver_sql(sql, (key,)).scalar_one() for key in KEYS]


def driver_sql_at_once(library: Library) -> list[str]:
    with library.engine.connect() as connection:
        marks = ", ".join("?" for _ in KEYS)
        sql = f"SELECT title FROM books WHERE id IN ({marks}) ORDER BY id"
        return list(connection.exec_driver_sql(sql, tuple(KEYS)).scalars())


def values_in_the_text_one_by_one(library: Library) -> list[str]:
    """The values stand in the statement: its text is another each time."""
    with library.engine.connect() as connection:
        return [
            connection.exec_driver_sql(f"SELECT title FROM books WHERE id = {key}").scalar_one()
            for key in KEYS
        ]


def values_in_the_text_at_once(library: Library) -> list[str]:
    with library.engine.connect() as connection:
        keys = ", ".join(str(key) for key in KEYS)
        return list(
            connection.exec_driver_sql(f"SELECT title FROM books WHERE id IN ({keys}) ORDER BY id").scalars()
        )


def column_of_each_one_by_one(library: Library) -> dict[str, str]:
    with library.session() as session:
        found = {}
        for title, publisher_id in session.execute(select(Book.title, Book.publisher_id)).all():
            found[title] = session.scalars(select(Publisher.name).where(Publisher.id == publisher_id)).one()
        return found


def column_of_each_at_once(library: Library) -> dict[str, str]:
    with library.session() as session:
        return dict(session.execute(select(Book.title, Publisher.name).join(Book.publisher)).all())


CASES = [
    one_by_one(get_one_by_one, get_at_once, "get", queries=6),
    one_by_one(get_in_a_function_one_by_one, get_in_a_function_at_once, "get", queries=6),
    one_by_one(session_each_one_by_one, session_each_at_once, "get", queries=6),
    one_by_one(select_by_key_one_by_one, select_by_key_at_once, "statement", queries=6),
    one_by_one(children_by_statement_one_by_one, children_by_statement_at_once, "statement", queries=6),
    one_by_one(legacy_filter_by_one_by_one, legacy_filter_by_at_once, "statement", queries=6),
    one_by_one(count_one_by_one, count_at_once, "statement", queries=6),
    one_by_one(dynamic_relationship_one_by_one, dynamic_relationship_at_once, "statement", queries=6),
    one_by_one(write_only_relationship_one_by_one, write_only_relationship_at_once, "statement", queries=6),
    one_by_one(exists_one_by_one, exists_at_once, "statement", queries=7),
    one_by_one(core_one_by_one, core_at_once, "statement", queries=6),
    one_by_one(text_one_by_one, text_at_once, "statement", queries=6),
    one_by_one(driver_sql_one_by_one, driver_sql_at_once, "statement", queries=6),
    one_by_one(values_in_the_text_one_by_one, values_in_the_text_at_once, "statement", queries=6),
    one_by_one(column_of_each_one_by_one, column_of_each_at_once, "statement", queries=12),
]
