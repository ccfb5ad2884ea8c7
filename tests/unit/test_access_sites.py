"""What the bytecode says of a read: what becomes of the value, what it decides, what is done to a container."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyscope.events.sync import Operation
from pyscope.probes.accesses.code import steps_of
from pyscope.probes.accesses.sites import ReadSite, Sites, Use


def _site(function: Callable[..., Any], attribute: str = "x", nth: int = 0) -> tuple[Sites, ReadSite]:
    code = function.__code__
    sites = Sites(code)
    reads = [
        step
        for step in steps_of(code)
        if step.name in ("LOAD_ATTR", "LOAD_METHOD") and step.value == attribute
    ]
    return sites, sites.read(reads[nth].offset)


def _use(function: Callable[..., Any]) -> Use:
    return _site(function)[1].uses[0]


def compared(o: Any) -> None:
    if o.x > 3:
        print()


def branched_on(o: Any) -> None:
    if not o.x:
        print()


def compared_and_stored(o: Any) -> bool:
    enough = o.x > 3
    print()
    return enough


def matched(o: Any) -> None:
    match o.x:
        case 3:
            print()


def membership(o: Any) -> bool:
    return o.x in (1, 2)


def through_a_call(o: Any) -> None:
    while len(str(o.x)) > 3:
        print()


def chained(o: Any, low: int, high: int) -> bool:
    return low < o.x < high


@pytest.mark.parametrize(
    "function", [compared, branched_on, compared_and_stored, matched, membership, through_a_call, chained]
)
def test_a_value_that_is_compared_or_decides_a_branch_is_a_check(function: Callable[..., Any]) -> None:
    assert _use(function).check


def stored(o: Any) -> None:
    y = o.x
    print(y)


def augmented(o: Any) -> None:
    o.x += 1


def into_an_attribute(o: Any) -> None:
    o.y = o.x + 1


def into_a_list(o: Any) -> list[Any]:
    return [each.x for each in o]


@pytest.mark.parametrize("function", [stored, augmented, into_an_attribute])
def test_a_value_that_is_stored_is_kept(function: Callable[..., Any]) -> None:
    use = _use(function)
    assert use.kept
    assert not use.check


def printed(o: Any) -> None:
    print(o.x)


def awaited(o: Any) -> Any:
    async def run() -> None:
        await o(o.x)

    return run


def formatted(o: Any) -> None:
    print(f"{o.x:>10} of {o.x!r}")


@pytest.mark.parametrize("function", [printed, awaited(None), formatted])
def test_a_value_that_is_handed_to_a_call_and_dropped_is_neither(function: Callable[..., Any]) -> None:
    assert _use(function) == Use()


def returned(o: Any) -> Any:
    return o.x


def returned_by_or(o: Any) -> Any:
    return o.x or 3


def test_a_value_that_is_returned_goes_on_in_the_caller() -> None:
    assert _use(returned).returned
    assert not _use(returned).check
    assert _use(returned_by_or).returned
    assert _use(returned_by_or).check


def decides(o: Any) -> None:
    before = 1
    if o.x:
        print("then")
    else:
        print("else")
    print(before)


def leaves_early(o: Any) -> int:
    if o.x:
        return 0
    print("later")
    return 1


def loops(o: Any) -> None:
    while o.x:
        print("body")
    print("behind")


def endless(o: Any) -> None:
    while True:
        if o.x:
            break
        print("again")
    print("behind")


def endless_until_it_returns(o: Any) -> None:
    while True:
        print("before")
        if o.x:
            print("then")
            return
        print("again")


def decides_nothing_else(o: Any) -> None:
    if o.x:
        print("then")
    o.x = 3


@pytest.mark.parametrize(
    ("function", "lines"),
    [
        (decides, {2, 3, 5}),
        (leaves_early, {1, 2, 3, 4}),
        (loops, {1, 2}),
        (endless, {4}),  # a break need not have an instruction of its own
        (endless_until_it_returns, {2, 3, 4, 5, 6}),
        (decides_nothing_else, {2}),
    ],
)
def test_a_condition_decides_about_the_lines_that_run_or_not(
    function: Callable[..., Any], lines: set[int]
) -> None:
    sites, site = _site(function)
    text = sites.decided_lines(site.uses[0])
    assert text is not None
    first = function.__code__.co_firstlineno
    decided = set()
    for part in text.split(","):
        begin, _, end = part.partition("-")
        decided |= set(range(int(begin) - first, int(end or begin) - first + 1))
    # the condition's own line may or may not be told
    own = {endless: {1, 2, 3}, endless_until_it_returns: {1, 3}, decides: {2}}.get(function, {1})
    assert decided - own == lines - own


def keeps(o: Any) -> None:
    kept = o.x
    print("between")
    made = kept + 1
    if made > 3:
        print("decided")
    print("behind")
    kept = 3
    print(kept)


def keeps_for_a_default(o: Any) -> None:
    kept = o.x
    made = kept or 1
    print(made)


def keeps_for_a_choice(o: Any) -> None:
    kept = o.x
    made = 1 if kept else 2
    print(made)


def keeps_for_several(o: Any) -> None:
    kept = o.x
    first, second = kept
    print(first, second)


def keeps_for_a_closure(o: Any) -> Callable[[], Any]:
    kept = o.x
    return lambda: kept


@pytest.mark.parametrize(
    ("function", "lines"),
    [
        (keeps, "3-5"),
        (keeps_for_a_default, None),
        (keeps_for_a_choice, None),
        (keeps_for_several, None),
        (keeps_for_a_closure, None),
    ],
)
def test_what_is_made_of_a_variable_that_keeps_the_value(
    function: Callable[..., Any], lines: str | None
) -> None:
    sites, site = _site(function)
    found = sites.using_lines(site.uses[0])
    first = function.__code__.co_firstlineno
    assert found == (None if lines is None else "-".join(str(int(n) + first) for n in lines.split("-")))


def _contents(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    return [(content.operation.name, content.key) for content in _site(function)[1].contents]


def test_what_is_done_to_a_container_is_read_off_the_code_around() -> None:
    def item(o: Any, k: Any) -> Any:
        return o.x[k]

    def set_item(o: Any, k: Any) -> None:
        o.x["a"] = k

    def add_to_item(o: Any, k: Any) -> None:
        o.x[k] += 1

    def delete_item(o: Any, k: Any) -> None:
        del o.x[k.id]

    def contains(o: Any, k: Any) -> bool:
        return k in o.x

    def length(o: Any) -> int:
        return len(o.x)

    def append(o: Any, k: Any) -> None:
        o.x.append(k)

    def pop(o: Any) -> Any:
        return o.x.pop()

    def pop_with_default(o: Any, k: Any) -> Any:
        return o.x.pop(k, None)

    def set_default(o: Any, k: Any) -> Any:
        return o.x.setdefault(k, [])

    def iterate(o: Any) -> None:
        for each in o.x:
            print(each)

    def iterate_items(o: Any) -> None:
        for each in o.x.items():
            print(each)

    def iterate_copy(o: Any) -> None:
        for each in list(o.x):
            print(each)

    def emptiness(o: Any) -> None:
        if not o.x:
            print()

    def slices(o: Any) -> None:
        o.x[1:2] = o.x[2:3]

    variable = ("variable", "k")
    assert _contents(item) == [("CONTENT_READ", variable)]
    assert _contents(set_item) == [("CONTENT_WRITE", ("constant", "a"))]
    assert _contents(add_to_item) == [("CONTENT_READ", variable), ("CONTENT_WRITE", variable)]
    assert _contents(delete_item) == [("CONTENT_WRITE", ("attribute", variable, "id"))]
    assert _contents(contains) == [("CONTENT_READ", variable)]
    assert _contents(length) == [("CONTENT_READ", None)]
    assert _contents(append) == [("CONTENT_WRITE", None)]
    assert _contents(pop) == [("CONTENT_WRITE", None)]
    assert _contents(pop_with_default) == [("CONTENT_CLAIM", variable)]
    assert _contents(set_default) == [("CONTENT_CLAIM", variable)]
    assert _contents(iterate) == [("ITERATE", None)]
    assert _contents(iterate_items) == [("ITERATE", None)]
    assert _contents(iterate_copy) == [("CONTENT_READ", None)]
    assert _contents(emptiness) == [("CONTENT_READ", None)]
    assert _contents(slices) == [("CONTENT_READ", None)]


def test_a_store_of_a_constant_is_known() -> None:
    def constant(o: Any) -> None:
        o.x = "open"

    def through(o: Any) -> None:
        o.y.z.x = None

    def computed(o: Any, n: int) -> None:
        o.x = n

    def stores(function: Callable[..., Any]) -> bool:
        sites = Sites(function.__code__)
        [store] = [
            step for step in steps_of(function.__code__) if step.name == "STORE_ATTR" and step.value == "x"
        ]
        return sites.writes_constant(store.offset)

    assert stores(constant)
    assert stores(through)
    assert not stores(computed)


def test_code_that_is_not_understood_is_taken_to_keep_the_value() -> None:
    def unpacked(o: Any) -> Any:
        return {**o.x, **o.y}, [*o.x], print(*o.x, **o.x)

    code = unpacked.__code__
    sites = Sites(code)
    for step in steps_of(code):
        site = sites.read(step.offset)  # whatever instruction it is
        assert site.uses
        sites.resumed(step.offset)
    assert sites.read(10**6).uses


def test_every_function_of_the_standard_library_s_asyncio_can_be_read() -> None:
    import asyncio
    import types

    def codes(code: types.CodeType) -> Any:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from codes(constant)

    seen = 0
    for name in ("base_events", "tasks", "queues", "streams", "unix_events"):
        module = getattr(asyncio, name)
        with open(module.__file__, encoding="utf-8") as source:
            for code in codes(compile(source.read(), module.__file__, "exec")):
                sites = Sites(code)
                for step in steps_of(code):
                    if step.name == "LOAD_ATTR":
                        site = sites.read(step.offset)
                        assert len(site.uses) == len(site.contents) + 1
                        for use in site.uses:
                            sites.decided_lines(use)
                        assert all(isinstance(content.operation, Operation) for content in site.contents)
                        seen += 1
    assert seen > 500
