"""Decisions that rest on other rows than those that are written, or on rows that are not there."""

from __future__ import annotations

from sqlalchemy import delete, exc, func, select, update
from sqlalchemy.dialects.postgresql import insert

from tests.twins.database.bank import Account, Bank, Doctor, Patient, Rendezvous, UniquePatient, Ward
from tests.twins.database.cases import DatabaseCase, Expected


def _on_call(bank: Bank) -> int:
    with bank.session() as session:
        return session.scalars(select(func.count()).select_from(Doctor).where(Doctor.on_call)).one()


def doctors_leave(bank: Bank) -> bool:
    """Each sees that the other is on call."""

    def leaver(key: int, others: Rendezvous) -> None:
        with bank.session() as session:
            on_call = session.scalars(select(Doctor).where(Doctor.on_call, Doctor.ward_id == 1)).all()
            others.meet()
            if len(on_call) >= 2:
                next(doctor for doctor in on_call if doctor.id == key).on_call = False
            session.commit()

    bank.run(lambda others: leaver(1, others), lambda others: leaver(2, others))
    return _on_call(bank) == 1


def doctors_leave_locked(bank: Bank) -> bool:
    def leaver(key: int, others: Rendezvous) -> None:
        with bank.session() as session:
            wanted = (
                select(Doctor)
                .where(Doctor.on_call, Doctor.ward_id == 1)
                .order_by(Doctor.id)
                .with_for_update()
            )
            on_call = session.scalars(wanted).all()
            others.meet()
            if len(on_call) >= 2:
                next(doctor for doctor in on_call if doctor.id == key).on_call = False
            session.commit()

    bank.run(lambda others: leaver(1, others), lambda others: leaver(2, others))
    return _on_call(bank) == 1


def overdrawn_together(bank: Bank) -> bool:
    """One account may be overdrawn as long as both together are not."""

    def withdraw(key: int, others: Rendezvous) -> None:
        with bank.session() as session:
            mine, other = session.get_one(Account, key), session.get_one(Account, 3 - key)
            others.meet()
            if mine.balance + other.balance >= 150:
                mine.balance -= 150
            session.commit()

    bank.run(lambda others: withdraw(1, others), lambda others: withdraw(2, others))
    return bank.balance(key=1) + bank.balance(key=2) >= 0


def overdrawn_serializable(bank: Bank) -> bool:
    def withdraw(key: int, others: Rendezvous) -> None:
        while True:
            with bank.session("SERIALIZABLE") as session:
                try:
                    mine, other = session.get_one(Account, key), session.get_one(Account, 3 - key)
                    others.meet()
                    if mine.balance + other.balance >= 150:
                        mine.balance -= 150
                    session.commit()
                    return
                except exc.OperationalError:
                    session.rollback()

    bank.run(lambda others: withdraw(1, others), lambda others: withdraw(2, others))
    return bank.balance(key=1) + bank.balance(key=2) >= 0


def counted_then_left(bank: Bank) -> bool:
    """The check is a count in the database, the change an UPDATE by key."""

    def leaver(key: int, others: Rendezvous) -> None:
        with bank.session() as session:
            counted = select(func.count()).select_from(Doctor).where(Doctor.ward_id == 1, Doctor.on_call)
            present = session.scalars(counted).one()
            others.meet()
            if present >= 2:
                session.execute(update(Doctor).where(Doctor.id == key).values(on_call=False))
            session.commit()

    bank.run(lambda others: leaver(1, others), lambda others: leaver(2, others))
    return _on_call(bank) == 1


def counted_under_the_wards_lock(bank: Bank) -> bool:
    def leaver(key: int, others: Rendezvous) -> None:
        with bank.session() as session:
            session.get_one(Ward, 1, with_for_update=True)
            counted = select(func.count()).select_from(Doctor).where(Doctor.ward_id == 1, Doctor.on_call)
            present = session.scalars(counted).one()
            others.meet()
            if present >= 2:
                session.execute(update(Doctor).where(Doctor.id == key).values(on_call=False))
            session.commit()

    bank.run(lambda others: leaver(1, others), lambda others: leaver(2, others))
    return _on_call(bank) == 1


def _patients(bank: Bank, model: type[Patient] | type[UniquePatient] = Patient) -> int:
    with bank.session() as session:
        return session.scalars(select(func.count()).select_from(model)).one()


def made_if_missing(bank: Bank) -> bool:
    def admit(others: Rendezvous) -> None:
        with bank.session() as session:
            known = session.scalars(select(Patient).where(Patient.name == "bob")).first()
            others.meet()
            if known is None:
                session.add(Patient(name="bob", ward_id=1))
            session.commit()

    bank.run(admit, admit)
    return _patients(bank) == 1


def made_if_missing_unique(bank: Bank) -> bool:
    def admit(others: Rendezvous) -> None:
        with bank.session() as session:
            known = session.scalars(select(UniquePatient).where(UniquePatient.name == "bob")).first()
            others.meet()
            if known is None:
                session.add(UniquePatient(name="bob"))
            try:
                session.commit()
            except exc.IntegrityError:
                session.rollback()

    bank.run(admit, admit)
    return _patients(bank, UniquePatient) == 1


def inserted_if_not_selected(bank: Bank) -> bool:
    def admit(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            known = connection.execute(select(Patient.id).where(Patient.name == "eve")).first()
            others.meet()
            if known is None:
                connection.execute(Patient.__table__.insert().values(name="eve", ward_id=1))

    bank.run(admit, admit)
    return _patients(bank) == 1


def inserted_on_conflict(bank: Bank) -> bool:
    def admit(others: Rendezvous) -> None:
        with bank.engine.begin() as connection:
            known = connection.execute(select(UniquePatient.id).where(UniquePatient.name == "eve")).first()
            others.meet()
            if known is None:
                connection.execute(insert(UniquePatient).values(name="eve").on_conflict_do_nothing())

    bank.run(admit, admit)
    return _patients(bank, UniquePatient) == 1


def last_bed_given_twice(bank: Bank) -> bool:
    """One bed, two patients: both counted none before."""

    def admit(name: str, others: Rendezvous) -> None:
        with bank.session() as session:
            counted = select(func.count()).select_from(Patient).where(Patient.ward_id == 1)
            taken = session.scalars(counted).one()
            others.meet()
            if taken < 1:
                session.add(Patient(name=name, ward_id=1))
            session.commit()

    bank.run(lambda others: admit("ann", others), lambda others: admit("bob", others))
    return _patients(bank) == 1


def last_bed_given_under_a_lock(bank: Bank) -> bool:
    def admit(name: str, others: Rendezvous) -> None:
        with bank.session() as session:
            ward = session.scalars(select(Ward).where(Ward.id == 1).with_for_update()).one()
            taken = session.scalars(
                select(func.count()).select_from(Patient).where(Patient.ward_id == ward.id)
            ).one()
            others.meet()
            if taken < ward.beds:
                session.add(Patient(name=name, ward_id=1))
            session.commit()

    bank.run(lambda others: admit("ann", others), lambda others: admit("bob", others))
    return _patients(bank) == 1


def _last_patient_stays(bank: Bank, lock: bool) -> bool:
    """A ward keeps at least one patient; the check is a count, the change a DELETE."""
    with bank.session() as session:
        session.add_all(Patient(name=name, ward_id=1) for name in ("ann", "bob"))
        session.commit()

    def discharge(name: str, others: Rendezvous) -> None:
        with bank.session() as session:
            if lock:
                session.get_one(Ward, 1, with_for_update=True)
            present = session.scalars(
                select(func.count()).select_from(Patient).where(Patient.ward_id == 1)
            ).one()
            mine = session.scalars(select(Patient.id).where(Patient.name == name)).one()
            others.meet()
            if present >= 2:
                session.execute(delete(Patient).where(Patient.id == mine))
            session.commit()

    bank.run(lambda others: discharge("ann", others), lambda others: discharge("bob", others))
    return _patients(bank) == 1


def both_discharged(bank: Bank) -> bool:
    return _last_patient_stays(bank, lock=False)


def discharged_under_the_wards_lock(bank: Bank) -> bool:
    return _last_patient_stays(bank, lock=True)


CASES = [
    DatabaseCase("doctors", doctors_leave, doctors_leave_locked, Expected("write_skew", "doctors.on_call")),
    DatabaseCase(
        "overdraft", overdrawn_together, overdrawn_serializable, Expected("write_skew", "accounts.balance")
    ),
    DatabaseCase(
        "count", counted_then_left, counted_under_the_wards_lock, Expected("write_skew", "doctors.on_call")
    ),
    DatabaseCase(
        "discharge",
        both_discharged,
        discharged_under_the_wards_lock,
        Expected("write_skew", "patients.ward_id"),
    ),
    DatabaseCase(
        "missing", made_if_missing, made_if_missing_unique, Expected("check_then_act", "patients.name")
    ),
    DatabaseCase(
        "not_selected",
        inserted_if_not_selected,
        inserted_on_conflict,
        Expected("check_then_act", "patients.name"),
    ),
    DatabaseCase(
        "last_bed",
        last_bed_given_twice,
        last_bed_given_under_a_lock,
        Expected("check_then_act", "patients.ward_id"),
    ),
]
