# What the SQLAlchemy probe does at each statement, as pyscope/probes/sql/statements.py does it in Python: from the same
# objects the same events. Whatever is not the usual course (a connection or a statement not met before, a SELECT that is
# no lazy load, a statement that changes rows) is asked of the Python functions.

# The classes that those objects are derived from; pyscope/fallback/statements.py says what the fields are.

cdef class ConnectionFields:
    cdef public object of, transaction, committing, dialect
    cdef public int64_t number, database
    cdef public int savepoints
    cdef public bint counts_selected

    def __init__(self, of, int64_t number, int64_t database, dialect):
        self.of = of
        self.number = number
        self.database = database
        self.dialect = dialect
        self.counts_selected = dialect != "sqlite"


cdef list no_loads = []


cdef class TransactionFields:
    cdef public int64_t number, connection, database
    cdef public str isolation
    cdef public list loads
    cdef public object first_run, looks, earlier, found_rows, writes, savepoints, batch
    cdef public LoadsFields begun
    cdef public bint autocommit, ended

    def __init__(self, int64_t number, int64_t connection, int64_t database, str isolation not None, list loads not None):
        self.begin(number, connection, database, isolation, loads)

    cdef int begin(self, int64_t number, int64_t connection, int64_t database, str isolation, list loads) except -1:
        self.number = number
        self.connection = connection
        self.database = database
        self.isolation = isolation
        self.autocommit = isolation == "AUTOCOMMIT"
        self.ended = False
        self.loads = loads
        self.begun = <LoadsFields?>loads[0]
        self.first_run = 0
        self.looks = self.earlier = self.found_rows = self.writes = self.savepoints = ()
        return 0

    cdef int drop(self) except -1:
        self.looks = self.earlier = self.found_rows = self.writes = self.savepoints = ()
        self.ended = True
        self.loads = no_loads
        return self.begun.end()

    def forget(self):
        """Drops what was gathered: it has ended."""
        self.drop()


cdef class KnownFields:
    cdef public object relationship, template
    cdef public tuple names
    cdef public int operation, load, asked_load
    cdef public bint entities, names_rows, orm, paged
    # As `names`, of this module's tables
    cdef uint64_t names_of
    cdef uint32_t template_name, relationship_name


cdef class LoadsFields:
    cdef public tuple last, rows, sent
    cdef public list alone
    cdef public int most, most_rows, few_rows, open

    cdef int end(self) except -1:
        if self.open:
            self.open -= 1
        if not self.open and <list>self.rows[0]:
            self.rows = [], []
            self.most_rows = self.few_rows
        return 0

    def ended(self):
        """A transaction has ended. When none is open, what was read is of no more interest."""
        self.end()


cdef class StatementsFields:
    cdef public object new_run
    cdef public bint watching
    cdef object of_threads
    cdef uint64_t serial

    @property
    def here(self):
        return self.of_threads

    @here.setter
    def here(self, of_threads):
        global next_serial
        self.of_threads = of_threads
        next_serial += 1
        self.serial = next_serial

    cdef LoadsFields loads(self):
        """`here.loads`: kept for the calling thread, until it or `here` is another."""
        cdef uint64_t thread = thread_number()
        if loads_here.serial != self.serial or loads_here.thread != thread:
            found = <LoadsFields?>self.of_threads.loads
            loads_here.serial, loads_here.thread, loads_here.loads = self.serial, thread, <PyObject*>found
        return <LoadsFields>loads_here.loads


cdef uint64_t next_serial = 0


def loaded(StatementsFields statements):
    """A listener that notes the rows of instances as they are loaded."""

    def note(state, context, attributes=None):
        cdef LoadsFields loads
        if context is not None:
            run = context.runid
            loads = statements.loads()
            states = <list>loads.rows[0]
            (<list>loads.rows[1]).append(run)
            states.append(state)
            if len(<list>states) >= loads.most_rows:
                loads.shorten_rows()

    return note


cpdef int64_t identity_number(uint64_t salt, uint64_t class_address, key) except? -1:
    """A salted hash of an instance whose key is one integer, never 0."""
    return <int64_t>mixed_in(mixed_in(mixed_in(0, salt), class_address), <uint64_t>whole(key)) or 1


DEF STATEMENT_NUMBERS = 15


cdef class Statements:
    """The path of a statement. `statements` is the Python twin; the others are what that knows by these names."""
    cdef StatementsFields statements
    cdef object probe, emitter_active, known_of, fingerprint, purpose, identity
    cdef object connections  # a dict
    cdef dict compiled
    cdef set sending
    cdef tuple asked
    cdef object salt
    cdef uint64_t salt_number
    cdef uint16_t kind
    cdef int select, other, eager, most_looks

    def __init__(self, StatementsFields statements, emitter_active, *, probe, connections, dict compiled, set sending,
                 known_of, fingerprint, purpose, identity, salt, tuple asked, uint16_t kind, int select, int other, int eager,
                 int most_looks):
        self.statements = statements
        self.emitter_active = emitter_active
        self.probe = probe
        self.connections = connections
        self.compiled = compiled
        self.sending = sending
        self.known_of = known_of
        self.fingerprint = fingerprint
        self.purpose = purpose
        self.identity = identity
        self.salt = salt
        self.salt_number = salt
        self.asked = asked
        self.kind = kind
        self.select = select
        self.other = other
        self.eager = eager
        self.most_looks = most_looks

    def handing(self, original):
        """A dialect's method that hands a statement with its parameters to the driver, and tells of it."""
        python_path = self.statements.sent

        def hand(dialect, cursor, statement, parameters, context=None):
            cdef int64_t began
            if (
                context is None or not self.statements.watching or not (hook.active or self.emitter_active())
                or (self.sending and PyLong_FromVoidPtr(<void*>context) in self.sending)
            ):
                return original(dialect, cursor, statement, parameters, context)
            began = monotonic_ns()
            try:
                result = original(dialect, cursor, statement, parameters, context)
            except BaseException as error:
                self.probe.failed(statement, context, error, monotonic_ns() - began)
                raise
            if hook.active:
                self.sent(cursor, statement, parameters, context, monotonic_ns() - began)
            else:
                python_path(cursor, statement, parameters, context, monotonic_ns() - began)
            return result

        return hand

    cdef sent(self, cursor, statement, parameters, context, int64_t duration):
        try:
            self.tell(cursor, statement, parameters, context, duration)
        except Exception:
            self.probe.fault()

    cdef int tell(self, cursor, statement, parameters, context, int64_t duration) except -1:
        cdef int64_t numbers[STATEMENT_NUMBERS]
        cdef ConnectionFields record
        cdef KnownFields known
        cdef TransactionFields transaction
        connection = context.root_connection
        record = record_of(self.connections, connection)
        if record is None:
            record = <ConnectionFields?>self.probe.opened(connection)
        compiled = context.compiled
        entry = self.compiled.get(PyLong_FromVoidPtr(<void*>compiled))
        if entry is not None and refers_to((<tuple>entry)[0], compiled):
            known = <KnownFields?>(<tuple>entry)[1]
        else:
            known = <KnownFields?>self.known_of(compiled, statement, record.dialect)
        if record.transaction is None:
            self.probe.started(record, connection)
        transaction = <TransactionFields?>record.transaction
        cdef LoadsFields loads = self.statements.loads()
        rows = -1
        if known.operation != self.select or record.counts_selected:
            rows = cursor.rowcount
            if type(rows) is not int:
                rows = -1
        cdef int64_t number = new_number()
        relationship = parent_statement = None
        cdef int load = 0
        cdef int64_t parent = 0, arguments = 0
        if known.operation == self.select:
            if known.orm:
                settings = context.execution_options
                if isinstance(settings, dict):  # SQLAlchemy's immutabledict is one
                    options = (<dict>settings).get("_sa_orm_load_options")
                else:
                    options = settings.get("_sa_orm_load_options")
                state = None if options is None else options._lazy_loaded_from
                if state is None and (options is None or options._refresh_state is None):
                    load = known.asked_load
                    if load == self.eager:
                        relationship = known.relationship
                elif state is None:
                    load, relationship, parent, parent_statement = self.purpose(options, known, loads)
                else:
                    load, relationship = known.load, known.relationship
                    parent = self.identity_of(state)
                    run = state.runid
                    last, parent_statement = loads.last
                    if not last or last != run:
                        parent_statement = loads.template_of(run)
            arguments = parent or self.fingerprint_of(statement, parameters)
        if known.names_of != tables:
            known.template_name = intern_string(known.template)
            known.relationship_name = intern_string(known.relationship)
            known.names_of = tables
        numbers[0] = number
        numbers[1] = duration
        numbers[2] = known.template_name
        numbers[3] = known.operation
        numbers[4] = record.number
        numbers[5] = transaction.number
        numbers[6] = whole(rows)
        numbers[7] = stack_here(32)
        numbers[8] = arguments
        numbers[9] = load
        numbers[10] = 0
        if relationship:
            numbers[10] = known.relationship_name if relationship is known.relationship else intern_string(relationship)
        numbers[11] = parent
        numbers[12] = intern_string(parent_statement) if parent_statement else 0
        numbers[13] = known.paged
        numbers[14] = 0
        emit_numbers(self.kind, numbers, STATEMENT_NUMBERS)
        if loads is not transaction.loads[len(transaction.loads) - 1]:
            transaction.moved(loads)
        if known.entities:
            run = self.statements.new_run()
            if not transaction.first_run:
                transaction.first_run = run
            if len(<list>loads.sent[0]) >= loads.most:
                loads.shorten()
            (<list>loads.sent[1]).append(number)
            (<list>loads.sent[2]).append(known)
            (<list>loads.sent[3]).append(transaction)
            (<list>loads.sent[0]).append(run)  # last: what is found by its run is there
        if known.operation == self.select:
            if known.names_rows and load in self.asked:
                values = parameters if compiled is None else context.compiled_parameters[0]
                looks = transaction.looks
                if not looks:
                    transaction.looks = [(number, known, values, rows)]
                elif len(<list?>looks) < self.most_looks:
                    (<list>looks).append((number, known, values, rows))
            return 0
        if known.operation == self.other:
            return 0
        self.probe.follow(record, connection, known, number, transaction, parameters, context, rows)
        return 0

    cdef int64_t identity_of(self, state) except? -1:
        """`identity` of an instance; the key of most is one integer."""
        key = state.key
        if type(key) is tuple and type((<tuple>key)[1]) is tuple and len(<tuple>(<tuple>key)[1]) == 1:
            value = (<tuple>(<tuple>key)[1])[0]
            if type(value) is int:
                return identity_number(self.salt_number, <uint64_t><PyObject*>(<tuple>key)[0], value)
        return self.identity(state)

    cdef int64_t fingerprint_of(self, statement, parameters) except? -1:
        """`fingerprint`; most have one parameter, an integer."""
        if type(parameters) is tuple and len(<tuple>parameters) == 1 and type((<tuple>parameters)[0]) is int:
            return hash((self.salt, statement, 1, (<tuple>parameters)[0])) or 1
        return self.fingerprint(statement, parameters)


cdef ConnectionFields record_of(connections, connection):
    """What is known of a connection; None where that is of another, which had its address, or nothing is."""
    found = (<dict>connections).get(PyLong_FromVoidPtr(<void*>connection))
    if found is None or not refers_to((<ConnectionFields?>found).of, connection):
        return None
    return <ConnectionFields>found


cdef bint refers_to(reference, target):
    """Whether a weak reference refers to `target`, and that lives."""
    return weakref_target(<PyObject*>reference) == <PyObject*>target
