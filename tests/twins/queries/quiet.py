"""Programs that send many statements with good reason: nothing is to be found in them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select, text
from sqlalchemy.orm import joinedload, selectinload, subqueryload

from pyscope.probes.scope import Scope
from tests.twins.queries.library import AUTHORS, Author, Book, Category, Library, Review, Tag


def eager_loads_of_every_kind(library: Library) -> None:
    with library.session() as session:
        for load in (joinedload, selectinload, subqueryload):
            session.expire_all()
            session.scalars(select(Author).options(load(Author.books))).unique().all()


def single_parent(library: Library) -> None:
    """One instance, whose collection is loaded anew after each change."""
    with library.session() as session:
        author = session.get_one(Author, 1)
        for number in range(6):
            author.books.append(Book(title=f"more {number}", publisher_id=1, summary=""))
            session.flush()
            session.expire(author, ["books"])
            assert author.books


def limit_one(library: Library) -> None:
    with library.session() as session:
        author = session.scalars(select(Author).order_by(Author.id).limit(1)).one()
        for book in author.books:
            assert book.publisher.name


def four_parents(library: Library) -> None:
    """One below the threshold."""
    with library.session() as session:
        for author in session.scalars(select(Author).where(Author.id <= 4)).all():
            assert author.books


def four_keys(library: Library) -> None:
    with library.session() as session:
        for key in range(1, 5):
            session.get_one(Author, key)


def four_times_the_same(library: Library) -> None:
    with library.session() as session:
        for _ in range(4):
            session.scalars(select(Author.name).where(Author.id == 1)).one()


def different_places(library: Library) -> None:
    """Unrelated code that asks for other authors each, six times, through one function."""

    def author(key: int) -> Author:
        return session.get_one(Author, key)

    with library.session() as session:
        first = author(1)
        second = author(2)
        third = author(3)
        fourth = author(4)
        fifth = author(5)
        sixth = author(6)
        assert {first, second, third, fourth, fifth, sixth}


def pages_by_offset(library: Library) -> None:
    with library.session() as session:
        for page in range(6):
            session.scalars(select(Book).order_by(Book.id).limit(2).offset(2 * page)).all()


def pages_by_key(library: Library) -> None:
    with library.session() as session:
        last = 0
        while rows := session.scalars(select(Book.id).where(Book.id > last).order_by(Book.id).limit(2)).all():
            last = rows[-1]


def chunks_of_keys(library: Library) -> None:
    with library.session() as session:
        for first in range(1, 13, 2):
            session.scalars(select(Book).where(Book.id.in_([first, first + 1]))).all()


def polling(library: Library) -> None:
    """One instance is looked at until it changes."""
    with library.session() as session:
        author = session.get_one(Author, 1)
        for _ in range(6):
            session.refresh(author)


def read_after_write(library: Library) -> None:
    """The same question, but each time something has been written that may change the answer."""
    with library.session() as session:
        for number in range(6):
            session.add(Tag(name=f"new {number}"))
            session.flush()
            assert session.execute(text("SELECT count(*) FROM tags")).scalar_one()


def inserts(library: Library) -> None:
    with library.session() as session:
        for number in range(8):
            session.add(Review(book_id=1, stars=number))
            session.flush()
        session.commit()


def a_request_each(library: Library) -> None:
    """Six requests, each with one lazy load."""
    for key in range(1, AUTHORS + 1):
        with Scope("request", "GET /authors/{id}"), library.session() as session:
            assert session.get_one(Author, key).books


def a_job_each(library: Library) -> None:
    """Six jobs of a worker that is no code of the program's, one after the other in one thread."""

    def job(key: int) -> int:
        with library.session() as session:
            return len(session.get_one(Author, key).books)

    with ThreadPoolExecutor(1) as worker:
        assert len([worker.submit(job, key).result() for key in range(1, AUTHORS + 1)]) == AUTHORS


def in_the_session_already(library: Library) -> None:
    """Many-to-one attributes whose targets the session holds send nothing."""
    with library.session() as session:
        held = session.scalars(select(Author)).all()
        for book in session.scalars(select(Book)).all():
            assert book.author in held


def without_a_table(library: Library) -> None:
    with library.engine.connect() as connection:
        for number in range(6):
            connection.execute(text("SELECT :number + 1"), {"number": number})


def one_recursive_query(library: Library) -> None:
    with library.session() as session:
        tree = select(Category.id).where(Category.parent_id.is_(None)).cte("tree", recursive=True)
        tree = tree.union_all(select(Category.id).join(tree, Category.parent_id == tree.c.id))
        assert len(session.scalars(select(tree.c.id)).all()) == AUTHORS


QUIET = [
    eager_loads_of_every_kind,
    single_parent,
    limit_one,
    four_parents,
    four_keys,
    four_times_the_same,
    different_places,
    pages_by_offset,
    pages_by_key,
    chunks_of_keys,
    polling,
    read_after_write,
    inserts,
    a_request_each,
    a_job_each,
    in_the_session_already,
    without_a_table,
    one_recursive_query,
]
