"""Programs whose transactions meet and do no harm: nothing is to be found in them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from tests.twins.database.bank import Account, Bank, Doctor, Patient, Rendezvous, VersionedAccount, Ward


def other_rows(bank: Bank) -> bool:
    """Each reads and writes an account of its own."""

    def withdraw(key: int, others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, key)
            others.meet()
            account.balance -= 10
            session.commit()

    bank.run(lambda others: withdraw(1, others), lambda others: withdraw(2, others))
    return bank.balance(key=1) == bank.balance(key=2) == 90


def other_columns(bank: Bank) -> bool:
    """The ORM writes only what has changed: neither overwrites the other."""

    def note(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.note = "seen"
            session.commit()

    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.balance -= 10
            session.commit()

    bank.run(note, withdraw)
    return bank.balance() == 90


def seen_now(bank: Bank) -> bool:
    """Each writes when it was there: of two such times the later one holds, whoever read what before."""

    def look(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.seen = datetime.now()
            session.commit()

    bank.run(look, look)
    return True


def seen_now_by_hand(bank: Bank) -> bool:
    """The same, sent as text by one, and in UTC by the other."""

    def look(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            connection.execute(text("SELECT seen FROM accounts WHERE id = 1"))
            others.meet()
            connection.execute(text("UPDATE accounts SET seen = :now WHERE id = 1"), {"now": datetime.now()})

    def look_in_utc(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.seen = datetime.now(UTC).replace(tzinfo=None)
            session.commit()

    bank.run(look, look_in_utc)
    return True


def one_after_the_other(bank: Bank) -> bool:
    """Transactions that do not overlap."""
    for _ in range(3):
        with bank.session() as session:
            session.get_one(Account, 1).balance -= 10
            session.commit()
    return bank.balance() == 70


def page_of_which_each_changes_one(bank: Bank) -> bool:
    """Both read the same list, found by a column that nobody changes, and each changes a row of its own."""

    def change(key: int, others: Rendezvous) -> None:
        with bank.session() as session:
            accounts = session.scalars(select(Account).where(Account.owner == "ann")).all()
            others.meet()
            next(account for account in accounts if account.id == key).note = "mine"
            session.commit()

    bank.run(lambda others: change(1, others), lambda others: change(2, others))
    return True


def reader_and_writer(bank: Bank) -> bool:
    """One only reads."""

    def look(others: Rendezvous) -> None:
        with bank.session() as session:
            session.scalars(select(Account)).all()
            others.meet()
            session.scalars(select(Account)).all()
            session.commit()

    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.balance -= 10
            session.commit()

    bank.run(look, withdraw)
    return bank.balance() == 90


def rolled_back(bank: Bank) -> bool:
    """The other's change never held."""

    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet("read")
            others.meet("rolled back")
            account.balance -= 10
            session.commit()

    def give_up(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet("read")
            account.balance -= 50
            session.flush()
            session.rollback()
        others.meet("rolled back")

    bank.run(withdraw, give_up)
    return bank.balance() == 90


def taken_back_to_a_savepoint(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet("read")
            others.meet("committed")
            account.balance -= 10
            session.commit()

    def note(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet("read")
            nested = session.begin_nested()
            account.balance -= 50
            session.flush()
            nested.rollback()
            session.get_one(Account, 2).note = "tried"
            session.commit()
        others.meet("committed")

    bank.run(withdraw, note)
    return bank.balance() == 90


def blind_write(bank: Bank) -> bool:
    """A value that rests on nothing read: the last one counts, as is meant."""

    def stamp(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            others.meet()
            connection.execute(update(Account.__table__).where(Account.id == 1).values(note="stamped"))

    bank.run(stamp, stamp)
    return True


def read_again_under_a_lock(bank: Bank) -> bool:
    """A look without a lock, then the decision under one."""

    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            session.get_one(Account, 1)
            others.meet("looked")
            account = session.get_one(Account, 1, with_for_update=True, populate_existing=True)
            others.meet("locked")
            account.balance -= 10
            session.commit()

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def advisory_lock(bank: Bank) -> bool:
    """The program takes turns by a lock of its own naming in the database."""

    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(7)"))
            account = session.get_one(Account, 1)
            others.meet()
            account.balance -= 10
            session.commit()

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def lock_of_the_parent(bank: Bank) -> bool:
    """Children are changed under the lock of their parent's row."""

    def leave(key: int, others: Rendezvous) -> None:
        with bank.session() as session:
            session.get_one(Ward, 1, with_for_update=True)
            doctors = session.scalars(select(Doctor).where(Doctor.ward_id == 1, Doctor.on_call)).all()
            others.meet()
            if len(doctors) > 1:
                next(doctor for doctor in doctors if doctor.id == key).on_call = False
            session.commit()

    bank.run(lambda others: leave(1, others), lambda others: leave(2, others))
    with bank.session() as session:
        return len(session.scalars(select(Doctor).where(Doctor.on_call)).all()) == 1


def added_to_a_list_that_was_read(bank: Bank) -> bool:
    """Patients are listed and one is added: the list said nothing against it."""

    def admit(name: str, others: Rendezvous) -> None:
        with bank.session() as session:
            session.scalars(select(Patient).where(Patient.ward_id == 1)).all()
            others.meet()
            session.add(Patient(name=name, ward_id=1))
            session.commit()

    with bank.session() as session:
        session.add(Patient(name="first", ward_id=1))
        session.commit()
    bank.run(lambda others: admit("ann", others), lambda others: admit("bob", others))
    return True


def taken_and_given_back(bank: Bank) -> bool:
    """While one decides, another takes the account and gives it back: what the UPDATE's condition says holds again."""

    def claim(others: Rendezvous) -> None:
        with bank.session() as session:
            assert session.get_one(Account, 1).status == "open"
            others.meet("read")
            others.meet("given back")
            taken = update(Account).where(Account.id == 1, Account.status == "open").values(status="taken")
            assert session.execute(taken).rowcount == 1
            session.commit()

    def borrow(others: Rendezvous) -> None:
        others.meet("read")
        for status in ("lent", "open"):
            with bank.session() as session:
                session.execute(update(Account).where(Account.id == 1).values(status=status))
                session.commit()
        others.meet("given back")

    bank.run(claim, borrow)
    return True


def last_seen(bank: Bank) -> bool:
    """Each says when it was there: the later one is right, whatever it had read."""

    def visit(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.seen = datetime.now()
            session.commit()

    bank.run(visit, visit)
    return True


def version_by_hand(bank: Bank) -> bool:
    """The UPDATE's condition says which version it rests on, in transactions that are open at the same time."""

    def withdraw(session: Session) -> None:
        of = VersionedAccount
        balance, version = session.execute(select(of.balance, of.version).where(of.id == 1)).one()
        rests = update(of).where(of.id == 1, of.version == version)
        assert session.execute(rests.values(balance=balance - 10, version=version + 1)).rowcount == 1
        session.commit()

    def late(others: Rendezvous) -> None:
        with bank.session() as session:
            session.get_one(Account, 1)
            others.meet("begun")
            others.meet("changed")
            withdraw(session)

    def early(others: Rendezvous) -> None:
        others.meet("begun")
        with bank.session() as session:
            withdraw(session)
        others.meet("changed")

    bank.run(late, early)
    return True


QUIET = [
    last_seen,
    version_by_hand,
    seen_now,
    seen_now_by_hand,
    taken_and_given_back,
    other_rows,
    other_columns,
    one_after_the_other,
    page_of_which_each_changes_one,
    reader_and_writer,
    rolled_back,
    taken_back_to_a_savepoint,
    blind_write,
    read_again_under_a_lock,
    advisory_lock,
    lock_of_the_parent,
    added_to_a_list_that_was_read,
]
