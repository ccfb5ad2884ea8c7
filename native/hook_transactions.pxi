# What the SQLAlchemy probe does as a transaction begins and ends, as pyscope/probes/sqlalchemy.py does it in Python: from
# the same objects the same events.

DEF STEP_NUMBERS = 5


cdef class Transactions:
    """The path of a transaction. `statements`: that of its statements; the others are what the probe knows by these
    names, and the numbers of `Step`."""
    cdef StatementsFields statements
    cdef object probe, connections, transaction_type
    cdef dict databases
    cdef uint16_t kind
    cdef int begin, commit, rollback, failed

    def __init__(self, StatementsFields statements, *, probe, connections, dict databases, transaction_type, uint16_t kind,
                 int begin, int commit, int rollback, int failed):
        self.statements = statements
        self.probe = probe
        self.connections = connections
        self.databases = databases
        self.transaction_type = transaction_type
        self.kind = kind
        self.begin = begin
        self.commit = commit
        self.rollback = rollback
        self.failed = failed

    def beginning(self, original, in_python):
        """A method of connections that begins a transaction. `in_python`: the same with what is told of it in Python."""

        def begin(connection, *arguments):
            if not hook.active or not self.statements.watching:
                return in_python(connection, *arguments)
            try:
                self.tell_begin(connection)
            except Exception:
                self.probe.fault()
            return original(connection, *arguments)

        return begin

    def ending(self, original, in_python, bint commits):
        """As `beginning`, for one that ends a transaction."""
        cdef int step = self.commit if commits else self.rollback

        def end(connection, *arguments):
            if not hook.active or not self.statements.watching:
                return in_python(connection, *arguments)
            try:
                self.tell_end(connection, step)
            except Exception:
                self.probe.fault()
            if not commits:
                return original(connection, *arguments)
            try:
                return original(connection, *arguments)
            except BaseException:
                try:
                    self.probe.refused(connection)
                except Exception:
                    self.probe.fault()
                raise

        return end

    cdef ConnectionFields met(self, connection):
        """What is known of a connection, from now on if it is new."""
        cdef ConnectionFields record = record_of(self.connections, connection)
        if record is not None:
            return record
        dialect = connection.dialect
        known = self.databases.get(PyLong_FromVoidPtr(<void*>dialect))
        if known is None or not refers_to((<tuple?>known)[0], dialect):
            return <ConnectionFields?>self.probe.opened(connection)
        record = ConnectionFields.__new__(ConnectionFields)
        record.of = new_weak_reference(connection, NULL)
        record.number = new_number()
        record.database = (<tuple>known)[1]
        record.dialect = (<tuple>known)[2]
        self.connections.add(connection, record)
        return record

    cdef int tell_begin(self, connection) except -1:
        cdef ConnectionFields record = self.met(connection)
        options = connection.get_execution_options()
        if isinstance(options, dict):  # SQLAlchemy's immutabledict is one
            isolation = (<dict>options).get("isolation_level")
        else:
            isolation = options.get("isolation_level")
        isolation = isolation or connection.dialect.default_isolation_level or ""
        cdef LoadsFields loads = self.statements.loads()
        cdef TransactionFields transaction = TransactionFields.__new__(self.transaction_type)
        transaction.begin(
            new_number(), record.number, record.database, isolation if type(isolation) is str else str(isolation), loads.alone
        )
        loads.open += 1
        record.committing = None
        record.transaction = transaction
        return self.tell_step(transaction, self.begin)

    cdef int tell_end(self, connection, int step) except -1:
        cdef ConnectionFields record = self.met(connection)
        found = record.transaction
        record.transaction = None
        if step == self.rollback and found is None and record.committing is not None:
            found, step = record.committing, self.failed
        record.committing = None
        if found is None:
            return self.statements.loads().end()  # it began before the recording, or outside one
        cdef TransactionFields transaction = <TransactionFields?>found
        if transaction.autocommit:
            step = self.commit  # each statement has done that already
        if step == self.commit:
            if transaction.writes:
                transaction.tell()
            record.committing = transaction
        if step != self.failed:
            transaction.drop()
        return self.tell_step(transaction, step)

    cdef int tell_step(self, TransactionFields transaction, int step) except -1:
        cdef int64_t numbers[STEP_NUMBERS]
        numbers[0] = step
        numbers[1] = transaction.number
        numbers[2] = transaction.connection
        numbers[3] = intern_string(transaction.isolation)
        numbers[4] = stack_here(32)
        emit_numbers(self.kind, numbers, STEP_NUMBERS)
        return 0
