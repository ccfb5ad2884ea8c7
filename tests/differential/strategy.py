"""Programs for the differential tests: Hypothesis draws Python source that exercises every way in and out of a frame.

A program ends by itself (functions call only later ones, recursion counts down) and is deterministic: what it
prints goes through `say`, kept apart by thread. It defines `main()`.
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Callable

from hypothesis import strategies as st

__all__ = ["programs"]

Draw = Callable[[st.SearchStrategy], object]

PRELUDE = """
import asyncio, contextlib, functools, threading
said, keep = {}, []
class Wrong(Exception): pass
class Worse(Wrong): pass
ERRORS = (ValueError, KeyError, Wrong, Worse, ZeroDivisionError, StopIteration, RuntimeError)
def say(value):
    plain = value is None or isinstance(value, (int, str, list, tuple))
    said.setdefault(threading.current_thread().name, []).append(value if plain else type(value).__name__)
def fail(n):
    raise ERRORS[n % 5](n)
def leaf(n):
    return n + 1
def down(n):
    return 0 if n <= 0 else 1 + down(n - 1)
def down_and_fail(n):
    if n <= 0:
        fail(n)
    return down_and_fail(n - 1)
def decorated(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)
    return wrapper
@contextlib.contextmanager
def guarded(n):
    leaf(n)
    try:
        yield n
    except Worse:
        say("swallowed")
    finally:
        leaf(n)
class Thing:
    def __init__(self, n): self.n = n
    def method(self, n): return leaf(n)
    @property
    def value(self): return leaf(self.n)
    @classmethod
    def made(cls, n): return cls(n)
    @staticmethod
    def still(n): return leaf(n)
    def __getitem__(self, n):
        if n > 2: raise IndexError(n)
        return leaf(n)
    def __call__(self, n): return self.method(n)
    def __enter__(self): return self
    def __exit__(self, kind, error, trace): return kind is Worse
    def __iter__(self):
        for n in range(2): yield self[n]
    def __lt__(self, other): return leaf(self.n) < leaf(other.n)
    async def __aenter__(self): await asyncio.sleep(0); return self
    async def __aexit__(self, kind, error, trace): await asyncio.sleep(0); return kind is Worse
"""

ANY = ["leaf(n)", "down(n % 7)", "fail(n)", "say(n)"]


class Writer:
    """Writes one program. Functions are named by kind (f plain, g generator, c coroutine, a async generator) and
    number; a body refers only to functions of higher numbers, which are written first."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.names: dict[str, list[str]] = {"f": [], "g": [], "c": [], "a": []}

    def pick(self, options: list[str]) -> str:
        return str(self.draw(st.sampled_from(options)))

    def small(self, low: int = 0, high: int = 3) -> int:
        return int(self.draw(st.integers(low, high)))  # type: ignore[call-overload]

    def one(self, kind: str) -> str:
        return self.pick(
            self.names[kind] or {"f": ["leaf"], "g": ["Thing"], "c": ["nap"], "a": ["ticks"]}[kind]
        )

    def error(self) -> str:
        return self.pick(["ValueError", "KeyError", "Wrong", "Worse", "Exception", "(Wrong, KeyError)"])

    def block(self, kind: str, depth: int) -> str:
        return "\n".join(self.statement(kind, depth) for _ in range(self.small(1, 3)))

    def inner(self, kind: str, depth: int) -> str:
        return textwrap.indent(self.block(kind, depth - 1) if depth > 0 else self.simple(kind), "    ")

    def statement(self, kind: str, depth: int) -> str:
        if depth <= 0:
            return self.simple(kind)
        shape = self.small(0, 12)
        body = self.inner(kind, depth)
        if shape == 0:
            return (
                f"try:\n{body}\nexcept {self.error()} as e:\n    say(type(e).__name__)\n{self.inner(kind, 0)}"
            )
        if shape == 1:
            return f"try:\n{body}\nfinally:\n{self.inner(kind, 0)}"
        if shape == 2:
            return f"for n in range({self.small(0, 3)}):\n{body}"
        if shape == 3:
            return f"with {self.pick(['Thing(n)', 'guarded(n)'])}:\n{body}"
        if shape == 4:
            return f"if n % 2:\n{body}\nelse:\n{self.inner(kind, 0)}"
        if shape == 5 and kind in "ca":
            return f"async with Thing(n):\n{body}"
        if shape == 6:
            return f"try:\n{body}\nexcept {self.error()}:\n    raise Worse(n)"
        if shape == 7 and kind in "ga":
            return f"try:\n{body}\nexcept GeneratorExit:\n    leaf(n)\n    {self.pick(['raise', 'return'])}"
        if shape == 8 and kind in "ca":
            return f"async for v in {self.one('a')}(n):\n    say(v)\n{body}" + self.pick(["", "\n    break"])
        return self.simple(kind)

    def simple(self, kind: str) -> str:
        if kind in "ga" and self.small(0, 2) == 0:
            return self.pick(["yield n", "n = (yield n) or n", "yield leaf(n)", "yield"])
        if kind == "g" and self.small(0, 3) == 0:
            return f"{self.pick(['', 'n = '])}(yield from {self.one('g')}(n)) or 1"
        if kind in "ca" and self.small(0, 1) == 0:
            return self.awaiting()
        return self.plain()

    def plain(self) -> str:
        f, g, k = self.one("f"), self.one("g"), self.small(0, 3)
        return self.pick([
            *ANY,
            f"{f}(n)", f"say({f}(n))", f"{f}(n + {k})", f"return {f}(n)",
            f"[{f}(v) for v in range({k})]",
            f"{{{f}(v) and None for v in range({k})}}",
            f"{{v: {f}(v) for v in range({k})}}",
            f"say(len([v for v in ({f}(v) for v in range({k}))]))",
            f"any({f}(v) is n for v in range({k}))",
            f"(lambda v: {f}(v))(n)",
            f"list(map(lambda v: {f}(v), range({k})))",
            f"sorted(range({k}), key=lambda v: ({f}(v), v)[1])",
            f"functools.reduce(lambda a, b: leaf(a), range({k}), 0)",
            f"decorated({f})(n)",
            "down_and_fail(n % 4)",
            "say(Thing(n).value)", "say(list(Thing(n)))", "Thing.made(n)(n)", "Thing.still(n)", "say(Thing(n)[n])",
            "max(Thing(1), Thing(2), Thing(n))",
            f"say(list({g}(n)))", f"say(list(zip({g}(n), range({k}))))",
            f"i = iter({g}(n)); say(next(i, None)); say(next(i, None)); del i",
            f"i = iter({g}(n)); say(next(i, None)); keep.append(i); del i",
            f"i = iter({g}(n)); say(next(i, None)); i.close()",
            f"i = iter({g}(n)); i.close()",
            f"i = iter({g}(n)); say(next(i, None)); i.throw({self.error_to_throw()}(n))",
            f"i = iter({g}(n)); i.throw({self.error_to_throw()}(n))",
            f"i = iter({g}(n)); next(i, None); i.send(n)",
            f"i = iter({g}(n)); threaded(i); say(next(i, None))",
            f"a, *b = {g}(n); say(b)",
        ])  # fmt: skip

    def error_to_throw(self) -> str:
        return self.pick(["ValueError", "Wrong", "Worse", "GeneratorExit", "StopIteration"])

    def awaiting(self) -> str:
        c, a, k = self.one("c"), self.one("a"), self.small(0, 3)
        return self.pick([
            "await asyncio.sleep(0)", "await nap(n)",
            f"await {c}(n)", f"return await {c}(n)" if self.kind == "c" else f"await {c}(n)", f"say(await {c}(n))",
            f"await asyncio.gather(*[{c}(v) for v in range({k})])",
            f"await asyncio.gather(*[{c}(v) for v in range({k})], return_exceptions=True)",
            f"t = asyncio.create_task({c}(n), name='t{k}'); await t",
            f"t = asyncio.create_task({c}(n), name='t{k}'); await asyncio.sleep(0); t.cancel(); "
            "await asyncio.wait([t])",
            f"t = asyncio.create_task({c}(n), name='t{k}'); t.cancel(); await asyncio.wait([t])",
            f"say([v async for v in {a}(n)])",
            f"i = {a}(n); say(await anext(i, None)); await i.aclose()",
            f"i = {a}(n); say(await anext(i, None)); await i.athrow({self.pick(['ValueError', 'Wrong'])}(n))",
            f"await asyncio.wait_for({c}(n), 1000)",
        ])  # fmt: skip

    def function(self, kind: str, number: int) -> str:
        self.kind = kind
        name = f"{kind}{number}"
        body = textwrap.indent(self.block(kind, 2), "    ")
        if kind == "a":  # no value may be returned from one
            body = (
                body.replace("return await", "await").replace("return f", "f").replace("return leaf", "leaf")
            )
        head = "async def" if kind in "ca" else "def"
        if kind in "ga":
            body += "\n    yield n"
        decorator = "@decorated\n" if kind == "f" and self.small(0, 4) == 0 else ""
        source = f"{decorator}{head} {name}(n):\n{body}\n    {'return' if kind == 'a' else 'return n'}\n"
        self.names[kind].append(name)
        return source

    def entry(self, number: int) -> str:
        f, c, g, n = self.one("f"), self.one("c"), self.one("g"), self.small(0, 4)
        shapes = [
            f"{f}({n})", f"{f}({n})", f"say(list({g}({n})))",
            f"asyncio.run({c}({n}))", f"asyncio.run({c}({n}))",
            f"run_threads({f}, {n})", f"threaded(iter({g}({n})))",
            f"def step(n=0):\n    try:\n        {c}(n).send(None)\n    except StopIteration: pass\nstep()",
        ]  # fmt: skip
        if GREENLETS:
            shapes += [f"run_greenlets({f}, {g}, {n})", f"run_greenlets({f}, {g}, {n})"]
        body = textwrap.indent(self.pick(shapes), "        ")
        return f"    try:\n{body}\n    except BaseException as e:\n        say(('left by', type(e).__name__, str(e)))\n"


SUPPORT = """
async def nap(n):
    await asyncio.sleep(0)
    return n
async def ticks(n):
    for v in range(n % 3):
        await asyncio.sleep(0)
        yield v
def quietly(function, *arguments):
    try:
        say(function(*arguments))
    except BaseException as e:
        say(('left by', type(e).__name__))
def run_threads(function, n):
    threads = [threading.Thread(target=quietly, args=(function, n), name=f"worker-{i}") for i in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
def threaded(iterator):
    name = "taker of " + threading.current_thread().name  # two threads' takers are not one another's
    thread = threading.Thread(target=quietly, args=(next, iterator, None), name=name)
    thread.start()
    thread.join()
"""

GREENLETS = importlib.util.find_spec("greenlet") is not None
SWITCHING = """
import greenlet
def run_greenlets(function, generator, n):
    def first():
        leaf(n)
        two.switch()
        quietly(function, n)
        two.switch()
        leaf(n)
    def second():
        for value in generator(n):
            one.switch()
        leaf(n)
        main.switch()
    def failing():
        main.switch()
        function(n)
        fail(n)
    main = greenlet.getcurrent()
    one, two, three = greenlet.greenlet(first), greenlet.greenlet(second), greenlet.greenlet(failing)
    quietly(one.switch)
    three.switch()
    quietly(three.switch)
    for each in (one, two):
        if each: quietly(each.throw, greenlet.GreenletExit)
"""


@st.composite
def programs(draw: Draw) -> str:
    """Source of a program with some functions of each kind and a `main()` that uses them."""
    writer = Writer(draw)
    parts = [PRELUDE, SUPPORT, SWITCHING if GREENLETS else ""]
    for number in range(writer.small(1, 3), 0, -1):
        for kind in "fgca":
            if writer.small(0, 4):
                parts.append(writer.function(kind, number))
    entries = [writer.entry(number) for number in range(writer.small(1, 4))]
    parts.append("def main():\n" + "".join(entries) + "    return said\n")
    return "\n".join(parts)
