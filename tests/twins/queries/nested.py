"""Relationships of what a relationship loaded."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import joinedload, load_only, selectinload

from tests.twins.queries.cases import one_by_one
from tests.twins.queries.library import Author, Book, Category, Library


def two_levels_one_by_one(library: Library) -> int:
    stars = 0
    with library.session() as session:
        for author in session.scalars(select(Author)).all():
            for book in author.books:
                stars += sum(review.stars for review in book.reviews)
    return stars


def two_levels_at_once(library: Library) -> int:
    stars = 0
    with library.session() as session:
        chain = selectinload(Author.books).selectinload(Book.reviews)
        for author in session.scalars(select(Author).options(chain)).all():
            for book in author.books:
                stars += sum(review.stars for review in book.reviews)
    return stars


def inner_level_one_by_one(library: Library) -> list[str]:
    """The outer relationship is loaded well; the one below is not."""
    with library.session() as session:
        authors = session.scalars(
            select(Author).options(selectinload(Author.books)).order_by(Author.id)
        ).all()
        return [book.publisher.name for author in authors for book in author.books]


def inner_level_at_once(library: Library) -> list[str]:
    with library.session() as session:
        chain = selectinload(Author.books).joinedload(Book.publisher)
        authors = session.scalars(select(Author).options(chain).order_by(Author.id)).all()
        return [book.publisher.name for author in authors for book in author.books]


def one_parent_many_grandchildren_one_by_one(library: Library) -> list[list[str]]:
    """A single parent, whose children's own relationships load one by one."""
    with library.session() as session:
        tag_lists = []
        for book in session.scalars(select(Book).where(Book.author_id < 4).order_by(Book.id)).all():
            tag_lists.append([tag.name for tag in book.tags])
        return tag_lists


def one_parent_many_grandchildren_at_once(library: Library) -> list[list[str]]:
    with library.session() as session:
        statement = select(Book).where(Book.author_id < 4).options(joinedload(Book.tags)).order_by(Book.id)
        return [[tag.name for tag in book.tags] for book in session.scalars(statement).unique().all()]


def tree_one_by_one(library: Library) -> list[str]:
    def below(category: Category) -> list[str]:
        return [category.name, *(name for child in category.children for name in below(child))]

    with library.session() as session:
        return below(session.get_one(Category, 1))


def tree_at_once(library: Library) -> list[str]:
    with library.session() as session:
        children: dict[int | None, list[Category]] = {}
        for category in session.scalars(select(Category).order_by(Category.id)):
            children.setdefault(category.parent_id, []).append(category)

        def below(category: Category) -> list[str]:
            return [
                category.name,
                *(name for child in children.get(category.id, []) for name in below(child)),
            ]

        return below(children[None][0])


def up_and_down_one_by_one(library: Library) -> list[int]:
    """From a book to its author and to all of that author's books."""
    with library.session() as session:
        books = session.scalars(select(Book).order_by(Book.id)).all()
        return [len(book.author.books) for book in books]


def up_and_down_at_once(library: Library) -> list[int]:
    with library.session() as session:
        chain = joinedload(Book.author).selectinload(Author.books)
        books = session.scalars(select(Book).options(chain).order_by(Book.id)).all()
        return [len(book.author.books) for book in books]


def below_a_refresh_one_by_one(library: Library) -> list[str]:
    """What is loaded one by one belongs to instances that were themselves refreshed one by one."""
    with library.session() as session:
        names = []
        for book in session.scalars(select(Book).order_by(Book.id)).all():
            session.refresh(book)
            names.append(book.publisher.name)
        return names


def below_expired_instances_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        books = session.scalars(select(Book).order_by(Book.id)).all()
        session.commit()
        return [book.publisher.name for book in books]


def below_deferred_columns_one_by_one(library: Library) -> list[str]:
    with library.session() as session:
        books = session.scalars(select(Book).options(load_only(Book.title)).order_by(Book.id)).all()
        return [book.publisher.name for book in books]


def publishers_at_once(library: Library) -> list[str]:
    with library.session() as session:
        books = session.scalars(select(Book).options(joinedload(Book.publisher)).order_by(Book.id)).all()
        return [book.publisher.name for book in books]


CASES = [
    one_by_one(below_a_refresh_one_by_one, publishers_at_once, "scalar", "Book.publisher", 12),
    one_by_one(below_expired_instances_one_by_one, publishers_at_once, "scalar", "Book.publisher", 12),
    one_by_one(below_deferred_columns_one_by_one, publishers_at_once, "scalar", "Book.publisher", 12),
    one_by_one(two_levels_one_by_one, two_levels_at_once, "collection", "Book.reviews", 12),
    one_by_one(inner_level_one_by_one, inner_level_at_once, "scalar", "Book.publisher", 12),
    one_by_one(
        one_parent_many_grandchildren_one_by_one,
        one_parent_many_grandchildren_at_once,
        "collection",
        "Book.tags",
        6,
    ),
    one_by_one(tree_one_by_one, tree_at_once, "collection", "Category.children", 6),
    one_by_one(up_and_down_one_by_one, up_and_down_at_once, "collection", "Author.books", 6),
]
