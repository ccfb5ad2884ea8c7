"""Columns that load later: deferred, expired, refreshed."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import load_only, undefer, undefer_group

from tests.twins.queries.cases import one_by_one
from tests.twins.queries.library import Author, Book, Library


def deferred_column_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        return [book.summary for book in session.scalars(select(Book).order_by(Book.id)).all()]


def deferred_column_at_once(library: Library) -> list[str]:
    with library.session() as session:
        books = session.scalars(select(Book).options(undefer(Book.summary)).order_by(Book.id)).all()
        return [book.summary for book in books]


def deferred_group_one_by_one(library: Library) -> list[int]:
    with library.session() as session:
        authors = session.scalars(select(Author).order_by(Author.id)).all()
        return [author.died - author.born for author in authors]


def deferred_group_at_once(library: Library) -> list[int]:
    with library.session() as session:
        authors = session.scalars(select(Author).options(undefer_group("dates")).order_by(Author.id)).all()
        return [author.died - author.born for author in authors]


def load_only_one_by_one(library: Library) -> list[tuple[str, int]]:
    with library.session() as session:
        books = session.scalars(select(Book).options(load_only(Book.title)).order_by(Book.id)).all()
        return [(book.title, book.author_id) for book in books]


def load_only_at_once(library: Library) -> list[tuple[str, int]]:
    with library.session() as session:
        statement = select(Book).options(load_only(Book.title, Book.author_id)).order_by(Book.id)
        return [(book.title, book.author_id) for book in session.scalars(statement).all()]


def expired_by_commit_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        authors = session.scalars(select(Author).order_by(Author.id)).all()
        session.commit()
        return [author.name for author in authors]


def expired_by_commit_at_once(library: Library) -> list[str]:
    with library.session(expire_on_commit=False) as session:
        authors = session.scalars(select(Author).order_by(Author.id)).all()
        session.commit()
        return [author.name for author in authors]


def commit_in_the_loop_one_by_one(library: Library) -> int:
    """Each commit expires all instances, also those whose turn is still to come."""
    with library.session() as session:
        for author in session.scalars(select(Author).order_by(Author.id)).all():
            author.visits = author.id
            session.commit()
    return 6


def commit_in_the_loop_at_once(library: Library) -> int:
    with library.session() as session:
        for author in session.scalars(select(Author).order_by(Author.id)).all():
            author.visits = author.id
        session.commit()
    return 6


def made_in_the_loop_one_by_one(library: Library) -> int:
    """The key of each new instance is read after the commit that has expired it."""
    with library.session() as session:
        keys = []
        for number in range(6):
            author = Author(name=f"new {number}", biography="", born=0, died=0)
            session.add(author)
            session.commit()
            keys.append(author.id)
    return len(keys)


def made_in_the_loop_at_once(library: Library) -> int:
    with library.session() as session:
        authors = [Author(name=f"new {number}", biography="", born=0, died=0) for number in range(6)]
        session.add_all(authors)
        session.flush()
        keys = [author.id for author in authors]
        session.commit()
    return len(keys)


def expire_all_one_by_one(library: Library) -> int:
    with library.session() as session:
        authors = session.scalars(select(Author)).all()
        session.expire_all()
        return sum(author.visits for author in authors)


def expire_all_at_once(library: Library) -> int:
    with library.session() as session:
        session.scalars(select(Author)).all()
        session.expire_all()
        return sum(author.visits for author in session.scalars(select(Author)))


def rollback_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        authors = session.scalars(select(Author).order_by(Author.id)).all()
        session.rollback()
        return [author.name for author in authors]


def rollback_at_once(library: Library) -> list[str]:
    with library.session() as session:
        keys = [author.id for author in session.scalars(select(Author).order_by(Author.id)).all()]
        session.rollback()
        authors = session.scalars(select(Author).where(Author.id.in_(keys)).order_by(Author.id)).all()
        return [author.name for author in authors]


def refresh_one_by_one(library: Library) -> int:
    with library.session() as session:
        authors = session.scalars(select(Author)).all()
        for author in authors:
            session.refresh(author)
        return sum(author.visits for author in authors)


def refresh_at_once(library: Library) -> int:
    with library.session() as session:
        session.scalars(select(Author)).all()
        authors = session.scalars(select(Author).execution_options(populate_existing=True)).all()
        return sum(author.visits for author in authors)


CASES = [
    one_by_one(deferred_column_one_by_one, deferred_column_at_once, "deferred", "Book.summary", 12),
    one_by_one(deferred_group_one_by_one, deferred_group_at_once, "deferred", "Author.born/died", 6),
    one_by_one(load_only_one_by_one, load_only_at_once, "deferred", "Book.author_id", 12),
    one_by_one(expired_by_commit_one_by_one, expired_by_commit_at_once, "expired", "Author", 6),
    one_by_one(commit_in_the_loop_one_by_one, commit_in_the_loop_at_once, "expired", "Author", 5),
    one_by_one(made_in_the_loop_one_by_one, made_in_the_loop_at_once, "expired", "Author", 6),
    one_by_one(expire_all_one_by_one, expire_all_at_once, "expired", "Author", 6),
    one_by_one(rollback_one_by_one, rollback_at_once, "expired", "Author", 6),
    one_by_one(refresh_one_by_one, refresh_at_once, "refresh", "Author", 6),
]
