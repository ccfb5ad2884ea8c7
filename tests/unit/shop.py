"""A small shop that is recorded once, with every probe: requests, queries, calls to a till, orders, a thread that
crashes. The tests of the views and exports look at this one recording."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from sqlalchemy import Engine, ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool

import pyscope
from pyscope import probes
from pyscope.probes.scope import Scope
from tests.external.services import Answer, Service

ITEMS = 8
REQUESTS = 4


class Base(DeclarativeBase): ...


class Shop(Base):
    __tablename__ = "shops"
    id: Mapped[int] = mapped_column(primary_key=True)


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(ForeignKey("shops.id"))
    shop: Mapped[Shop] = relationship(Shop)


class Order:
    def __init__(self) -> None:
        self.status = "open"

    def pay(self) -> None:
        self.status = "paid"


def shops_of_items(engine: Engine) -> int:
    with Session(engine) as session:
        shops = 0
        for item in session.scalars(select(Item)):
            shops += item.shop is not None
        return shops


def charge(url: str) -> None:
    """The till refuses twice."""
    for _ in range(3):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                answer.read()
            return
        except urllib.error.HTTPError as error:
            error.close()
            time.sleep(0.01)


def pay(order: Order, url: str) -> None:
    charge(url)
    order.pay()


def price(amount: int) -> int:
    return amount * 2


async def list_items(engine: Engine) -> None:
    await asyncio.sleep(0.002)
    await asyncio.to_thread(shops_of_items, engine)


async def serve(engine: Engine) -> None:
    for _ in range(REQUESTS):
        with Scope("request", "GET /items") as scope:
            scope.route, scope.status = "/items", 200
            await list_items(engine)


def fail() -> None:
    raise LookupError("there is no such item")


def crash() -> None:
    raise OSError("the shop is closed")


def run(engine: Engine, url: str) -> None:
    shops_of_items(engine)  # for nobody's request
    asyncio.run(serve(engine))
    try:
        with Scope("request", "GET /items/{}") as scope:
            scope.route, scope.status = "/items/{item}", 500
            fail()
    except LookupError:
        pass
    order = Order()
    with Scope("request", "POST /orders") as scope:
        scope.route, scope.status = "/orders", 201
        with Scope("message", "Till.pay"):
            pay(order, url)
        for amount in range(200):
            price(amount)
    seller = threading.Thread(target=crash, name="seller")
    seller.start()
    seller.join()


def record(path: Path) -> Path:
    """Records the shop into a file."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Item(shop=Shop()) for _ in range(ITEMS)])
        session.commit()
    hook, threading.excepthook = threading.excepthook, lambda arguments: None
    try:
        with (
            Service(Answer(503), Answer(503)) as till,
            pyscope.record(path, modules=[__name__], probes=["auto", "state"], ring_mb=8),
        ):
            state = probes.installed("state")
            assert state is not None
            state.watch(Order)
            run(engine, f"{till.url}/charge")
            time.sleep(0.3)  # a sample of the resources
    finally:
        threading.excepthook = hook
        engine.dispose()
    return path


def plain(value: object) -> str:
    """As JSON; fails for what JSON or UTF-8 cannot hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
    return text
