"""The same with the asynchronous engine, whose ORM code runs in greenlets."""

from __future__ import annotations

import asyncio

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, joinedload, selectinload, undefer

from pyscope.probes.scope import Scope
from tests.twins.queries.cases import Expected, QueryCase, one_by_one
from tests.twins.queries.library import AUTHORS, Author, Book, Library

KEYS = range(1, AUTHORS + 1)


async def awaitable_collection_one_by_one(library: Library) -> list[int]:
    async with library.async_session() as session:
        authors = (await session.scalars(select(Author).order_by(Author.id))).all()
        return [len(await author.awaitable_attrs.books) for author in authors]


async def awaitable_collection_at_once(library: Library) -> list[int]:
    async with library.async_session() as session:
        statement = select(Author).options(selectinload(Author.books)).order_by(Author.id)
        return [len(author.books) for author in (await session.scalars(statement)).all()]


async def awaitable_scalar_one_by_one(library: Library) -> list[str]:
    names = []
    async with library.async_session() as session:
        for book in (await session.scalars(select(Book).order_by(Book.id))).all():
            publisher = await book.awaitable_attrs.publisher
            names.append(publisher.name)
    return names


async def awaitable_scalar_at_once(library: Library) -> list[str]:
    async with library.async_session() as session:
        statement = select(Book).options(joinedload(Book.publisher)).order_by(Book.id)
        return [book.publisher.name for book in (await session.scalars(statement)).all()]


async def run_sync_one_by_one(library: Library) -> int:
    def count(session: Session) -> int:
        return sum(len(author.books) for author in session.scalars(select(Author)))

    async with library.async_session() as session:
        return await session.run_sync(count)


async def run_sync_at_once(library: Library) -> int:
    def count(session: Session) -> int:
        return sum(
            len(author.books)
            for author in session.scalars(select(Author).options(selectinload(Author.books)))
        )

    async with library.async_session() as session:
        return await session.run_sync(count)


async def async_get_one_by_one(library: Library) -> list[str]:
    async with library.async_session() as session:
        return [(await session.get_one(Author, key)).name for key in KEYS]


async def async_get_at_once(library: Library) -> list[str]:
    async with library.async_session() as session:
        return list(await session.scalars(select(Author.name).where(Author.id.in_(KEYS)).order_by(Author.id)))


async def gathered_one_by_one(library: Library) -> list[str]:
    """Each in a task and a session of its own, all within one request."""

    async def name_of(key: int) -> str:
        async with library.async_session() as session:
            return (await session.get_one(Author, key)).name

    with Scope("request", "GET /authors"):
        return list(await asyncio.gather(*(name_of(key) for key in KEYS)))


async def gathered_at_once(library: Library) -> list[str]:
    with Scope("request", "GET /authors"):
        async with library.async_session() as session:
            return list(
                await session.scalars(select(Author.name).where(Author.id.in_(KEYS)).order_by(Author.id))
            )


async def async_expired_one_by_one(library: Library) -> list[str]:
    async with library.async_session() as session:
        authors = (await session.scalars(select(Author).order_by(Author.id))).all()
        await session.commit()
        return [await author.awaitable_attrs.name for author in authors]


async def async_expired_at_once(library: Library) -> list[str]:
    async with library.async_session(expire_on_commit=False) as session:
        authors = (await session.scalars(select(Author).order_by(Author.id))).all()
        await session.commit()
        return [author.name for author in authors]


async def async_deferred_one_by_one(library: Library) -> list[str]:
    async with library.async_session() as session:
        books = (await session.scalars(select(Book).order_by(Book.id))).all()
        return [await book.awaitable_attrs.summary for book in books]


async def async_deferred_at_once(library: Library) -> list[str]:
    async with library.async_session() as session:
        statement = select(Book).options(undefer(Book.summary)).order_by(Book.id)
        return [book.summary for book in await session.scalars(statement)]


async def async_refresh_one_by_one(library: Library) -> int:
    async with library.async_session() as session:
        authors = (await session.scalars(select(Author))).all()
        for author in authors:
            await session.refresh(author)
        return sum(author.visits for author in authors)


async def async_refresh_at_once(library: Library) -> int:
    async with library.async_session() as session:
        (await session.scalars(select(Author))).all()
        statement = select(Author).execution_options(populate_existing=True)
        return sum(author.visits for author in await session.scalars(statement))


async def async_text_one_by_one(library: Library) -> list[str]:
    async with library.async_engine.connect() as connection:
        statement = text("SELECT name FROM authors WHERE id = :key")
        return [(await connection.execute(statement, {"key": key})).scalar_one() for key in KEYS]


async def async_text_at_once(library: Library) -> list[str]:
    async with library.async_engine.connect() as connection:
        return list((await connection.execute(text("SELECT name FROM authors ORDER BY id"))).scalars())


async def async_nested_one_by_one(library: Library) -> int:
    stars = 0
    async with library.async_session() as session:
        statement = select(Author).options(selectinload(Author.books))
        for author in (await session.scalars(statement)).all():
            for book in author.books:
                stars += sum(review.stars for review in await book.awaitable_attrs.reviews)
    return stars


async def async_nested_at_once(library: Library) -> int:
    async with library.async_session() as session:
        chain = selectinload(Author.books).selectinload(Book.reviews)
        authors = (await session.scalars(select(Author).options(chain))).all()
        return sum(review.stars for author in authors for book in author.books for review in book.reviews)


async def _titles(session: AsyncSession, author: Author) -> list[str]:
    return list(
        await session.scalars(select(Book.title).where(Book.author_id == author.id).order_by(Book.id))
    )


async def async_function_one_by_one(library: Library) -> list[list[str]]:
    async with library.async_session() as session:
        authors = (await session.scalars(select(Author).order_by(Author.id))).all()
        return [await _titles(session, author) for author in authors]


async def async_function_at_once(library: Library) -> list[list[str]]:
    async with library.async_session() as session:
        titles: dict[int, list[str]] = {}
        for key, title in await session.execute(
            select(Book.author_id, Book.title).order_by(Book.author_id, Book.id)
        ):
            titles.setdefault(key, []).append(title)
        return list(titles.values())


async def same_setting_each_time(library: Library) -> int:
    async with library.async_session() as session:
        total = 0
        for _ in range(5):
            total += (await session.scalars(select(Author.visits).where(Author.id == 2))).one()
        return total


async def same_setting_once(library: Library) -> int:
    async with library.async_session() as session:
        return 5 * (await session.scalars(select(Author.visits).where(Author.id == 2))).one()


CASES = [
    one_by_one(
        awaitable_collection_one_by_one, awaitable_collection_at_once, "collection", "Author.books", 6
    ),
    one_by_one(awaitable_scalar_one_by_one, awaitable_scalar_at_once, "scalar", "Book.publisher", 12),
    one_by_one(run_sync_one_by_one, run_sync_at_once, "collection", "Author.books", 6),
    one_by_one(async_get_one_by_one, async_get_at_once, "get", queries=6),
    one_by_one(gathered_one_by_one, gathered_at_once, "get", queries=6),
    one_by_one(async_expired_one_by_one, async_expired_at_once, "expired", "Author", 6),
    one_by_one(async_deferred_one_by_one, async_deferred_at_once, "deferred", "Book.summary", 12),
    one_by_one(async_refresh_one_by_one, async_refresh_at_once, "refresh", "Author", 6),
    one_by_one(async_text_one_by_one, async_text_at_once, "statement", queries=6),
    one_by_one(async_nested_one_by_one, async_nested_at_once, "collection", "Book.reviews", 12),
    one_by_one(async_function_one_by_one, async_function_at_once, "statement", queries=6),
    QueryCase(
        "async_repeated_setting",
        same_setting_each_time,
        same_setting_once,
        Expected("repeated_query", "statement"),
    ),
]
