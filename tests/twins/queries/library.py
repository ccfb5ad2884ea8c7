"""A library of books on SQLite: the models that the twins read, and a small database of them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, ForeignKey, Table, create_engine
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    Session,
    WriteOnlyMapped,
    mapped_column,
    relationship,
)
from sqlalchemy.pool import NullPool

AUTHORS = 6
BOOKS = 2  # of each author


class Base(AsyncAttrs, DeclarativeBase):
    """The base of the models."""


tagged = Table(
    "tagged",
    Base.metadata,
    Column("book_id", ForeignKey("books.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Author(Base):
    """Somebody who wrote books."""

    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    visits: Mapped[int] = mapped_column(default=0)
    biography: Mapped[str] = mapped_column(deferred=True)
    born: Mapped[int] = mapped_column(deferred=True, deferred_group="dates")
    died: Mapped[int] = mapped_column(deferred=True, deferred_group="dates")
    books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.id")
    profile: Mapped[Profile | None] = relationship(back_populates="author")
    shelf: DynamicMapped[Book] = relationship(viewonly=True)
    catalogue: WriteOnlyMapped[Book] = relationship(viewonly=True)

    @property
    def titles(self) -> list[str]:
        """The titles of the author's books."""
        return [book.title for book in self.books]


class Profile(Base):
    """A page about an author."""

    __tablename__ = "profiles"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    url: Mapped[str]
    author: Mapped[Author] = relationship(back_populates="profile")


class Publisher(Base):
    """A house that publishes books."""

    __tablename__ = "publishers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(Base):
    """A book."""

    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    publisher_id: Mapped[int] = mapped_column(ForeignKey("publishers.id"))
    summary: Mapped[str] = mapped_column(deferred=True)
    author: Mapped[Author] = relationship(back_populates="books")
    publisher: Mapped[Publisher] = relationship()
    reviews: Mapped[list[Review]] = relationship(back_populates="book", order_by="Review.id")
    tags: Mapped[list[Tag]] = relationship(secondary=tagged, order_by="Tag.id")
    tag_names: AssociationProxy[list[str]] = association_proxy("tags", "name")

    def label(self) -> str:
        """The title with the publisher's name."""
        return f"{self.title} ({self.publisher.name})"


class Review(Base):
    """What somebody thought of a book."""

    __tablename__ = "reviews"
    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id"))
    stars: Mapped[int]
    book: Mapped[Book] = relationship(back_populates="reviews")


class Tag(Base):
    """A word about books."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Category(Base):
    """A tree of subjects."""

    __tablename__ = "categories"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("categories.id"))
    children: Mapped[list[Category]] = relationship(order_by="Category.id")


class Worker(Base):
    """Somebody who works in the library."""

    __tablename__ = "workers"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "worker"}  # noqa: RUF012


class Translator(Worker):
    """A worker who translates."""

    __tablename__ = "translators"
    id: Mapped[int] = mapped_column(ForeignKey("workers.id"), primary_key=True)
    language: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "translator"}  # noqa: RUF012


class Library:
    """A database file with sessions over it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "library.db"
        self.engine = create_engine(f"sqlite:///{self.path}")
        self.async_engine = create_async_engine(f"sqlite+aiosqlite:///{self.path}", poolclass=NullPool)

    def session(self, **options: bool) -> Session:
        """A synchronous session."""
        return Session(self.engine, **options)

    def async_session(self, **options: bool) -> AsyncSession:
        """An asynchronous session."""
        return AsyncSession(self.async_engine, **options)

    def close(self) -> None:
        """Closes the synchronous connections; the others close after each use."""
        self.engine.dispose()


def books_of(library: Library, key: int) -> int:
    """How many books an author has, in a session of its own."""
    with library.session() as session:
        return len(session.get_one(Author, key).books)


def build(library: Library) -> None:
    """The tables, six authors with two books each, and what belongs to them."""
    Base.metadata.create_all(library.engine)
    with library.session() as session:
        tags = [Tag(name=f"tag {number}") for number in range(4)]
        for number in range(1, AUTHORS + 1):
            author = Author(
                id=number, name=f"author {number}", biography=f"life {number}", born=1800 + number, died=1870
            )
            author.profile = Profile(url=f"https://authors.example/{number}")
            for at in range(BOOKS):
                author.books.append(
                    Book(
                        title=f"title {number}.{at}",
                        publisher=Publisher(name=f"publisher {number}.{at}"),
                        summary=f"about {number}.{at}",
                        reviews=[Review(stars=stars) for stars in (2, 5)],
                        tags=tags[at : at + 2],
                    )
                )
            session.add(author)
            branch = Category(
                id=number, name=f"category {number}", parent_id=None if number == 1 else number // 2
            )
            session.add(branch)
            session.add(Translator(name=f"worker {number}", language=f"language {number}"))
            session.flush()
        session.commit()
