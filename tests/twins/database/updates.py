"""Updates that rest on a value read before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import create_engine, exc, select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import NullPool

from tests.twins.database.bank import Account, Bank, Rendezvous, VersionedAccount
from tests.twins.database.cases import DatabaseCase, Expected

_TERM = datetime(2020, 1, 1)
_BALANCE = Expected("lost_update", "accounts.balance")


def model_read_and_written(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.balance -= 10
            session.commit()

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def model_read_for_update(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1, with_for_update=True)
            others.meet()
            account.balance -= 10
            session.commit()

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def attribute_set_to_a_value(bank: Bank) -> bool:
    def deposit(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.scalars(select(Account).where(Account.owner == "ann", Account.id == 1)).one()
            new = account.balance + 5
            others.meet()
            account.balance = new
            session.commit()

    bank.run(deposit, deposit)
    return bank.balance() == 110


def attribute_set_to_an_expression(bank: Bank) -> bool:
    def deposit(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.scalars(select(Account).where(Account.owner == "ann", Account.id == 1)).one()
            others.meet()
            account.balance = Account.balance + 5
            session.commit()

    bank.run(deposit, deposit)
    return bank.balance() == 110


def time_that_rests_on_what_was_read(bank: Bank) -> bool:
    """A term that is prolonged; nobody's clock shows it."""

    def prolong(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.seen = (account.seen or _TERM) + timedelta(days=30)
            session.commit()

    bank.run(prolong, prolong)
    with bank.session() as session:
        return session.get_one(Account, 1).seen == _TERM + timedelta(days=60)


def time_that_is_prolonged_under_a_lock(bank: Bank) -> bool:
    def prolong(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1, with_for_update=True)
            others.meet()
            account.seen = (account.seen or _TERM) + timedelta(days=30)
            session.commit()

    bank.run(prolong, prolong)
    with bank.session() as session:
        return session.get_one(Account, 1).seen == _TERM + timedelta(days=60)


def core_value(bank: Bank) -> bool:
    accounts = Account.__table__

    def withdraw(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            held = connection.execute(select(accounts.c.balance).where(accounts.c.id == 1)).scalar_one()
            others.meet()
            connection.execute(update(accounts).where(accounts.c.id == 1).values(balance=held - 10))

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def core_expression(bank: Bank) -> bool:
    accounts = Account.__table__

    def withdraw(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            held = connection.execute(select(accounts.c.balance).where(accounts.c.id == 1)).scalar_one()
            others.meet()
            if held >= 10:
                change = accounts.c.balance - 10
                connection.execute(update(accounts).where(accounts.c.id == 1).values(balance=change))

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def without_version(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 2)
            others.meet()
            account.balance -= 30
            session.commit()

    bank.run(withdraw, withdraw)
    return bank.balance(key=2) == 40


def with_version(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        while True:
            with bank.session() as session:
                account = session.get_one(VersionedAccount, 2)
                others.meet()
                account.balance -= 30
                try:
                    session.commit()
                    return
                except StaleDataError:
                    continue

    bank.run(withdraw, withdraw)
    return bank.balance(VersionedAccount, 2) == 40


def claimed_after_a_look(bank: Bank) -> bool:
    claimed = []

    def claim(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 1)
            free = account.status == "open"
            others.meet()
            if free:
                account.status = f"taken by {len(claimed)}"
                claimed.append(account.status)
            session.commit()

    bank.run(claim, claim)
    return len(claimed) == 1


def claimed_by_condition(bank: Bank) -> bool:
    claimed = []

    def claim(others: Rendezvous) -> None:
        with bank.session() as session:
            free = session.get_one(Account, 1).status == "open"
            others.meet()
            if free:
                taken = (
                    update(Account).where(Account.id == 1, Account.status == "open").values(status="taken")
                )
                if session.execute(taken).rowcount == 1:
                    claimed.append("one")
            session.commit()

    bank.run(claim, claim)
    return len(claimed) == 1


def written_by_hand(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            query = text("SELECT balance FROM accounts WHERE id = :key")
            held = connection.execute(query, {"key": 1}).scalar_one()
            others.meet()
            change = text("UPDATE accounts SET balance = :new WHERE id = :key")
            connection.execute(change, {"new": held - 1, "key": 1})

    bank.run(withdraw, withdraw)
    return bank.balance() == 98


def written_by_hand_atomic(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            query = text("SELECT balance FROM accounts WHERE id = :key")
            connection.execute(query, {"key": 1}).scalar_one()
            others.meet()
            change = text("UPDATE accounts SET balance = balance - :amount WHERE id = :key")
            connection.execute(change, {"amount": 1, "key": 1})

    bank.run(withdraw, withdraw)
    return bank.balance() == 98


def driver_sql(bank: Bank) -> bool:
    mark = "%s" if bank.is_postgres else "?"

    def withdraw(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            query = f"SELECT balance FROM accounts WHERE id = {mark}"
            held = connection.exec_driver_sql(query, (1,)).scalar_one()
            others.meet()
            connection.exec_driver_sql(
                f"UPDATE accounts SET balance = {mark} WHERE id = {mark}", (held - 1, 1)
            )

    bank.run(withdraw, withdraw)
    return bank.balance() == 98


def driver_sql_locked(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            query = "SELECT balance FROM accounts WHERE id = %s FOR UPDATE"
            held = connection.exec_driver_sql(query, (1,)).scalar_one()
            others.meet()
            connection.exec_driver_sql("UPDATE accounts SET balance = %s WHERE id = %s", (held - 1, 1))

    bank.run(withdraw, withdraw)
    return bank.balance() == 98


def read_committed(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        with bank.session("READ COMMITTED") as session:
            account = session.get_one(Account, 1)
            others.meet()
            account.balance -= 7
            session.commit()

    bank.run(withdraw, withdraw)
    return bank.balance() == 86


def repeatable_read_and_again(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        while True:
            with bank.session("REPEATABLE READ") as session:
                try:
                    account = session.get_one(Account, 1)
                    others.meet()
                    account.balance -= 7
                    session.commit()
                    return
                except exc.OperationalError:
                    session.rollback()

    bank.run(withdraw, withdraw)
    return bank.balance() == 86


def in_tasks(bank: Bank) -> bool:
    async def withdraw(others: Rendezvous) -> None:
        async with bank.async_session() as session:
            account = await session.get_one(Account, 1)
            await others.meet_async()
            account.balance -= 10
            await session.commit()

    bank.run_tasks(withdraw, withdraw)
    return bank.balance() == 80


def in_tasks_atomic(bank: Bank) -> bool:
    async def withdraw(others: Rendezvous) -> None:
        async with bank.async_session() as session:
            account = await session.get_one(Account, 1)
            await others.meet_async()
            if account.balance >= 10:
                change = update(Account).where(Account.id == 1, Account.balance >= 10)
                await session.execute(change.values(balance=Account.balance - 10))
            await session.commit()

    bank.run_tasks(withdraw, withdraw)
    return bank.balance() == 80


def shown_in_one_transaction_saved_in_another(bank: Bank) -> bool:
    """As a form is: what was read stands in the session, and is written after another commit."""

    def edit(others: Rendezvous) -> None:
        with bank.session(expire_on_commit=False) as session:
            account = session.get_one(Account, 1)
            session.commit()
            others.meet()
            account.balance += 1
            session.commit()

    bank.run(edit, edit)
    return bank.balance() == 102


def read_again_before_it_is_saved(bank: Bank) -> bool:
    def edit(others: Rendezvous) -> None:
        with bank.session(expire_on_commit=False) as session:
            account = session.get_one(Account, 1)
            session.commit()
            others.meet()
            session.refresh(account, with_for_update=True)
            account.balance += 1
            session.commit()

    bank.run(edit, edit)
    return bank.balance() == 102


def text_built_in_python(bank: Bank) -> bool:
    def append(others: Rendezvous) -> None:
        with bank.session() as session:
            account = session.get_one(Account, 2)
            others.meet()
            account.note = account.note + "x"
            session.commit()

    bank.run(append, append, append)
    with bank.session() as session:
        return session.get_one(Account, 2).note == "xxx"


def text_built_in_the_database(bank: Bank) -> bool:
    def append(others: Rendezvous) -> None:
        with bank.session() as session:
            session.get_one(Account, 2)
            others.meet()
            session.execute(update(Account).where(Account.id == 2).values(note=Account.note + "x"))
            session.commit()

    bank.run(append, append, append)
    with bank.session() as session:
        return session.get_one(Account, 2).note == "xxx"


def transfer(bank: Bank) -> bool:
    def move(others: Rendezvous) -> None:
        with bank.session() as session:
            source, target = session.scalars(select(Account).order_by(Account.id)).all()
            others.meet()
            source.balance -= 10
            target.balance += 10
            session.commit()

    bank.run(move, move)
    return (bank.balance(key=1), bank.balance(key=2)) == (80, 120)


def transfer_locked_in_order(bank: Bank) -> bool:
    def move(others: Rendezvous) -> None:
        with bank.session() as session:
            source, target = session.scalars(select(Account).order_by(Account.id).with_for_update()).all()
            others.meet()
            source.balance -= 10
            target.balance += 10
            session.commit()

    bank.run(move, move)
    return (bank.balance(key=1), bank.balance(key=2)) == (80, 120)


def list_of_keys(bank: Bank) -> bool:
    def close(others: Rendezvous) -> None:
        with bank.session() as session:
            notes = session.execute(select(Account.id, Account.note).where(Account.id.in_([1, 2]))).all()
            others.meet()
            changed = update(Account).where(Account.id.in_([key for key, _ in notes]))
            session.execute(changed.values(note=notes[0][1] + "y"))
            session.commit()

    bank.run(close, close)
    with bank.session() as session:
        return session.get_one(Account, 2).note == "yy"


def list_of_keys_computed(bank: Bank) -> bool:
    def close(others: Rendezvous) -> None:
        with bank.session() as session:
            keys = session.scalars(select(Account.id).where(Account.id.in_([1, 2]))).all()
            others.meet()
            changed = update(Account).where(Account.id.in_(sorted(keys)))
            session.execute(changed.values(note=Account.note + "y"))
            session.commit()

    bank.run(close, close)
    with bank.session() as session:
        return session.get_one(Account, 2).note == "yy"


def autocommitted(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        accounts = Account.__table__
        with bank.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            held = connection.execute(select(accounts.c.balance).where(accounts.c.id == 1)).scalar_one()
            others.meet()
            connection.execute(update(accounts).where(accounts.c.id == 1).values(balance=held - 10))

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def autocommitted_atomic(bank: Bank) -> bool:
    def withdraw(others: Rendezvous) -> None:
        accounts = Account.__table__
        with bank.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(select(accounts.c.balance).where(accounts.c.id == 1)).scalar_one()
            others.meet()
            change = accounts.c.balance - 10
            connection.execute(update(accounts).where(accounts.c.id == 1).values(balance=change))

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def _one_after_the_other(bank: Bank, locked: bool) -> bool:
    """Both are open at the same time, but the first ends before the second reads: this time it went well."""

    def early(others: Rendezvous) -> None:
        with bank.session() as session:
            others.meet("both begun")
            account = session.get_one(Account, 1, with_for_update=locked)
            account.balance -= 10
            session.commit()
        others.meet("early ended")

    def late(others: Rendezvous) -> None:
        with bank.session() as session:
            session.scalars(select(Account.id).where(Account.id == 2)).one()  # begins the transaction
            others.meet("both begun")
            others.meet("early ended")
            account = session.get_one(Account, 1, with_for_update=locked)
            account.balance -= 10
            session.commit()

    bank.run(early, late)
    return bank.balance() == 80


def lucky(bank: Bank) -> bool:
    return _one_after_the_other(bank, locked=False)


def not_lucky_but_locked(bank: Bank) -> bool:
    return _one_after_the_other(bank, locked=True)


def still_enough(bank: Bank) -> bool:
    """The condition says that there is enough; the new balance rests on the one that was read."""

    def withdraw(others: Rendezvous) -> None:
        with bank.session() as session:
            held = session.scalars(select(Account.balance).where(Account.id == 1)).one()
            others.meet()
            change = update(Account).where(Account.id == 1, Account.balance >= 10)
            session.execute(change.values(balance=held - 10))
            session.commit()

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def still_the_same(bank: Bank) -> bool:
    """Compare and set: the condition says that the balance is the one that was read, else it is read again."""

    def withdraw(others: Rendezvous) -> None:
        while True:
            with bank.session() as session:
                held = session.scalars(select(Account.balance).where(Account.id == 1)).one()
                others.meet()
                change = update(Account).where(Account.id == 1, Account.balance == held)
                changed = session.execute(change.values(balance=held - 10)).rowcount
                session.commit()
                if changed:
                    return

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def _without_transactions(bank: Bank, value: Callable[[int], Any]) -> bool:
    """The driver begins no transaction, though SQLAlchemy speaks of one: each statement commits itself."""
    engine = create_engine(bank.engine.url, poolclass=NullPool, connect_args={"isolation_level": None})

    def withdraw(others: Rendezvous) -> None:
        with Session(engine) as session:
            balance = session.scalars(select(Account.balance).where(Account.id == 1)).one()
            others.meet()
            session.execute(update(Account).where(Account.id == 1).values(balance=value(balance)))
            others.meet("written")
            session.commit()

    bank.run(withdraw, withdraw)
    return bank.balance() == 80


def without_transactions(bank: Bank) -> bool:
    return _without_transactions(bank, lambda balance: balance - 10)


def without_transactions_atomic(bank: Bank) -> bool:
    return _without_transactions(bank, lambda _: Account.balance - 10)


CASES = [
    DatabaseCase("model", model_read_and_written, model_read_for_update, _BALANCE),
    DatabaseCase("attribute", attribute_set_to_a_value, attribute_set_to_an_expression, _BALANCE),
    DatabaseCase("core", core_value, core_expression, _BALANCE),
    DatabaseCase("version", without_version, with_version, _BALANCE),
    DatabaseCase(
        "claim", claimed_after_a_look, claimed_by_condition, Expected("lost_update", "accounts.status")
    ),
    DatabaseCase("compare", still_enough, still_the_same, _BALANCE),
    DatabaseCase("text", written_by_hand, written_by_hand_atomic, _BALANCE),
    DatabaseCase("driver_sql", driver_sql, driver_sql_locked, _BALANCE),
    DatabaseCase("isolation", read_committed, repeatable_read_and_again, _BALANCE),
    DatabaseCase("tasks", in_tasks, in_tasks_atomic, _BALANCE),
    DatabaseCase("form", shown_in_one_transaction_saved_in_another, read_again_before_it_is_saved, _BALANCE),
    DatabaseCase(
        "note", text_built_in_python, text_built_in_the_database, Expected("lost_update", "accounts.note")
    ),
    DatabaseCase(
        "term",
        time_that_rests_on_what_was_read,
        time_that_is_prolonged_under_a_lock,
        Expected("lost_update", "accounts.seen"),
    ),
    DatabaseCase("transfer", transfer, transfer_locked_in_order, _BALANCE),
    DatabaseCase("keys", list_of_keys, list_of_keys_computed, Expected("lost_update", "accounts.note")),
    DatabaseCase("autocommit", autocommitted, autocommitted_atomic, _BALANCE),
    DatabaseCase(
        "lucky", lucky, not_lucky_but_locked, Expected("lost_update", "accounts.balance", "possible")
    ),
    DatabaseCase("sqlite_core", core_value, core_expression, _BALANCE, "sqlite"),
    DatabaseCase("sqlite_text", written_by_hand, written_by_hand_atomic, _BALANCE, "sqlite"),
    DatabaseCase("sqlite_alone", without_transactions, without_transactions_atomic, _BALANCE, "sqlite"),
    DatabaseCase("sqlite_tasks", in_tasks, in_tasks_atomic, _BALANCE, "sqlite"),
]
