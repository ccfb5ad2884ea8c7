"""Something free is searched for in a generator expression or a comprehension, and taken by two threads."""

from __future__ import annotations

import threading

from tests.twins.races import RaceCase, Stage

ROOMS = ("blue", "green", "red")


class Bookings:
    def __init__(self) -> None:
        self.guests: dict[str, int] = {}
        self.lock = threading.Lock()


def next_free_faulty(stage: Stage) -> None:
    bookings = stage.watch(Bookings())

    def book(guest: int) -> None:
        room = next(room for room in ROOMS if room not in bookings.guests)
        stage.pause()
        bookings.guests = {**bookings.guests, room: guest}

    stage.together(lambda: book(1), lambda: book(2))


def next_free_fixed(stage: Stage) -> None:
    bookings = stage.watch(Bookings())

    def book(guest: int) -> None:
        with bookings.lock:
            room = next(room for room in ROOMS if room not in bookings.guests)
            stage.pause()
            bookings.guests = {**bookings.guests, room: guest}

    stage.together(lambda: book(1), lambda: book(2))


def any_free_faulty(stage: Stage) -> None:
    bookings = stage.watch(Bookings())

    def book(guest: int) -> None:
        if all(room not in bookings.guests for room in ROOMS):
            stage.pause()
            bookings.guests = dict.fromkeys(ROOMS, guest)

    stage.together(lambda: book(1), lambda: book(2))


def counted_for_show_fixed(stage: Stage) -> None:
    """What was found is shown; what is written does not depend on it."""
    bookings = stage.watch(Bookings())

    def book(guest: int) -> None:
        if any(room not in bookings.guests for room in ROOMS):
            repr(guest)
        stage.pause()
        bookings.guests = dict.fromkeys(ROOMS, guest)

    stage.together(lambda: book(1), lambda: book(2))


def listed_faulty(stage: Stage) -> None:
    bookings = stage.watch(Bookings())

    def book(guest: int) -> None:
        free = [room for room in ROOMS if room not in bookings.guests]
        stage.pause()
        bookings.guests = {**bookings.guests, free[0]: guest}

    stage.together(lambda: book(1), lambda: book(2))


def listed_fixed(stage: Stage) -> None:
    bookings = stage.watch(Bookings())

    def book(guest: int) -> None:
        with bookings.lock:
            free = [room for room in ROOMS if room not in bookings.guests]
            stage.pause()
            bookings.guests = {**bookings.guests, free[0]: guest}

    stage.together(lambda: book(1), lambda: book(2))


def looped_faulty(stage: Stage) -> None:
    bookings = stage.watch(Bookings())

    def book(guest: int) -> None:
        found = None
        for room in ROOMS:
            if room not in bookings.guests:
                found = room
                break
        stage.pause()
        name = str(found)
        bookings.guests = {**bookings.guests, name: guest}

    stage.together(lambda: book(1), lambda: book(2))


def looped_for_show_fixed(stage: Stage) -> None:
    """The variable that the loop sets has another value by the time of the write."""
    bookings = stage.watch(Bookings())

    def book(guest: int) -> None:
        room = "none"
        for room in ROOMS:
            if room not in bookings.guests:
                break
        repr(room)
        stage.pause()
        room = "blue"
        bookings.guests = {room: guest}

    stage.together(lambda: book(1), lambda: book(2))


_EXPECTED = ("check_then_act", "Bookings.guests", "observed")

CASES = [
    RaceCase("next free in a generator expression", next_free_faulty, next_free_fixed, _EXPECTED),
    RaceCase("all of a generator expression", any_free_faulty, counted_for_show_fixed, _EXPECTED),
    RaceCase("listed in a comprehension", listed_faulty, listed_fixed, _EXPECTED),
    RaceCase("found in a loop", looped_faulty, looped_for_show_fixed, _EXPECTED),
]
