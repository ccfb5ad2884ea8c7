"""Relationships that load when they are touched, one parent after the other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select
from sqlalchemy.orm import immediateload, joinedload, selectinload, subqueryload

from tests.twins.queries.cases import one_by_one
from tests.twins.queries.library import Author, Book, Library, Translator, Worker


def collection_one_by_one(library: Library) -> list[int]:
    with library.session() as session:
        return [len(author.books) for author in session.scalars(select(Author).order_by(Author.id))]


def collection_at_once(library: Library) -> list[int]:
    with library.session() as session:
        authors = session.scalars(select(Author).options(selectinload(Author.books)).order_by(Author.id))
        return [len(author.books) for author in authors]


def many_to_one_one_by_one(library: Library) -> list[str]:
    names = []
    with library.session() as session:
        for book in session.scalars(select(Book).order_by(Book.id)).all():
            names.append(book.publisher.name)
    return names


def many_to_one_at_once(library: Library) -> list[str]:
    names = []
    with library.session() as session:
        for book in session.scalars(select(Book).options(joinedload(Book.publisher)).order_by(Book.id)).all():
            names.append(book.publisher.name)
    return names


def many_to_many_one_by_one(library: Library) -> set[str]:
    with library.session() as session:
        return {tag.name for book in session.scalars(select(Book)) for tag in book.tags}


def many_to_many_at_once(library: Library) -> set[str]:
    with library.session() as session:
        books = session.scalars(select(Book).options(subqueryload(Book.tags)))
        return {tag.name for book in books for tag in book.tags}


def one_to_one_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        authors = session.scalars(select(Author).order_by(Author.id)).all()
        return [author.profile.url for author in authors if author.profile]


def one_to_one_at_once(library: Library) -> list[str]:
    with library.session() as session:
        authors = session.scalars(
            select(Author).options(joinedload(Author.profile)).order_by(Author.id)
        ).all()
        return [author.profile.url for author in authors if author.profile]


def shared_parent_one_by_one(library: Library) -> list[str]:
    """Two books share an author: as many SELECTs as authors, not as books."""
    with library.session() as session:
        return [book.author.name for book in session.scalars(select(Book).order_by(Book.id)).all()]


def shared_parent_at_once(library: Library) -> list[str]:
    with library.session() as session:
        books = session.scalars(select(Book).options(selectinload(Book.author)).order_by(Book.id)).all()
        return [book.author.name for book in books]


def method_of_the_model_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        return [book.label() for book in session.scalars(select(Book).order_by(Book.id)).all()]


def method_of_the_model_at_once(library: Library) -> list[str]:
    with library.session() as session:
        books = session.scalars(select(Book).options(joinedload(Book.publisher)).order_by(Book.id)).all()
        return [book.label() for book in books]


def property_of_the_model_one_by_one(library: Library) -> list[list[str]]:
    with library.session() as session:
        return [author.titles for author in session.scalars(select(Author).order_by(Author.id)).all()]


def property_of_the_model_at_once(library: Library) -> list[list[str]]:
    with library.session() as session:
        authors = session.scalars(
            select(Author).options(selectinload(Author.books)).order_by(Author.id)
        ).all()
        return [author.titles for author in authors]


def association_proxy_one_by_one(library: Library) -> list[list[str]]:
    with library.session() as session:
        return [list(book.tag_names) for book in session.scalars(select(Book).order_by(Book.id)).all()]


def association_proxy_at_once(library: Library) -> list[list[str]]:
    with library.session() as session:
        books = session.scalars(select(Book).options(selectinload(Book.tags)).order_by(Book.id)).all()
        return [list(book.tag_names) for book in books]


def sort_key_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        books = session.scalars(select(Book)).all()
        return [book.title for book in sorted(books, key=lambda book: (book.publisher.name, book.id))]


def sort_key_at_once(library: Library) -> list[str]:
    with library.session() as session:
        books = session.scalars(select(Book).options(joinedload(Book.publisher))).all()
        return [book.title for book in sorted(books, key=lambda book: (book.publisher.name, book.id))]


def filter_in_python_one_by_one(library: Library) -> int:
    with library.session() as session:
        return sum(
            any(review.stars == 5 for review in book.reviews) for book in session.scalars(select(Book))
        )


def filter_in_python_at_once(library: Library) -> int:
    with library.session() as session:
        statement = select(func.count()).select_from(Book).where(Book.reviews.any(stars=5))
        return session.scalars(statement).one()


def generator_one_by_one(library: Library) -> list[tuple[str, int]]:
    def counted() -> Iterator[tuple[str, int]]:
        with library.session() as session:
            for author in session.scalars(select(Author).order_by(Author.id)):
                yield author.name, len(author.books)

    return list(counted())


def generator_at_once(library: Library) -> list[tuple[str, int]]:
    def counted() -> Iterator[tuple[str, int]]:
        with library.session() as session:
            statement = select(Author.name, func.count(Book.id)).join(Author.books).group_by(Author.id)
            yield from (tuple(row) for row in session.execute(statement.order_by(Author.id)))

    return list(counted())


def immediateload_one_by_one(library: Library) -> list[int]:
    """It looks like eager loading, and sends one SELECT for each parent."""
    with library.session() as session:
        authors = session.scalars(
            select(Author).options(immediateload(Author.books)).order_by(Author.id)
        ).all()
        return [len(author.books) for author in authors]


def immediateload_at_once(library: Library) -> list[int]:
    with library.session() as session:
        authors = session.scalars(select(Author).options(joinedload(Author.books)).order_by(Author.id))
        return [len(author.books) for author in authors.unique().all()]


def in_a_thread_one_by_one(library: Library) -> int:
    def count() -> int:
        with library.session() as session:
            return sum(len(author.books) for author in session.scalars(select(Author)))

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(count).result()


def in_a_thread_at_once(library: Library) -> int:
    def count() -> int:
        with library.session() as session:
            authors = session.scalars(select(Author).options(selectinload(Author.books)))
            return sum(len(author.books) for author in authors)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(count).result()


def legacy_query_one_by_one(library: Library) -> list[int]:
    with library.session() as session:
        return [len(book.reviews) for book in session.query(Book).order_by(Book.id)]


def legacy_query_at_once(library: Library) -> list[int]:
    with library.session() as session:
        books = session.query(Book).options(selectinload(Book.reviews)).order_by(Book.id)
        return [len(book.reviews) for book in books]


def option_of_another_statement_one_by_one(library: Library) -> list[int]:
    """One author was loaded eagerly; the statement for all has no such option."""
    with library.session() as session:
        first = select(Author).where(Author.id == 1).options(selectinload(Author.books))
        session.scalars(first).one()
        return [len(author.books) for author in session.scalars(select(Author).order_by(Author.id)).all()]


def option_of_another_statement_at_once(library: Library) -> list[int]:
    with library.session() as session:
        session.scalars(select(Author).where(Author.id == 1)).one()
        every = select(Author).options(selectinload(Author.books)).order_by(Author.id)
        return [len(author.books) for author in session.scalars(every).all()]


def subclass_column_one_by_one(library: Library) -> list[str]:
    """The columns of a subclass's own table load on touch when the base class is selected."""
    with library.session() as session:
        workers = session.scalars(select(Worker).order_by(Worker.id)).all()
        return [worker.language for worker in workers if isinstance(worker, Translator)]


def subclass_column_at_once(library: Library) -> list[str]:
    with library.session() as session:
        workers = session.scalars(select(Translator).order_by(Worker.id)).all()
        return [worker.language for worker in workers]


CASES = [
    one_by_one(collection_one_by_one, collection_at_once, "collection", "Author.books", 6),
    one_by_one(many_to_one_one_by_one, many_to_one_at_once, "scalar", "Book.publisher", 12),
    one_by_one(many_to_many_one_by_one, many_to_many_at_once, "collection", "Book.tags", 12),
    one_by_one(one_to_one_one_by_one, one_to_one_at_once, "scalar", "Author.profile", 6),
    one_by_one(shared_parent_one_by_one, shared_parent_at_once, "scalar", "Book.author", 6),
    one_by_one(method_of_the_model_one_by_one, method_of_the_model_at_once, "scalar", "Book.publisher", 12),
    one_by_one(
        property_of_the_model_one_by_one, property_of_the_model_at_once, "collection", "Author.books", 6
    ),
    one_by_one(association_proxy_one_by_one, association_proxy_at_once, "collection", "Book.tags", 12),
    one_by_one(sort_key_one_by_one, sort_key_at_once, "scalar", "Book.publisher", 12),
    one_by_one(filter_in_python_one_by_one, filter_in_python_at_once, "collection", "Book.reviews", 12),
    one_by_one(generator_one_by_one, generator_at_once, "collection", "Author.books", 6),
    one_by_one(immediateload_one_by_one, immediateload_at_once, "collection", "Author.books", 6),
    one_by_one(in_a_thread_one_by_one, in_a_thread_at_once, "collection", "Author.books", 6),
    one_by_one(legacy_query_one_by_one, legacy_query_at_once, "collection", "Book.reviews", 12),
    one_by_one(
        option_of_another_statement_one_by_one,
        option_of_another_statement_at_once,
        "collection",
        "Author.books",
        5,
    ),
    one_by_one(subclass_column_one_by_one, subclass_column_at_once, "subclass", "Translator.language", 6),
]
