# What hook.pyx uses of the C++ headers and of CPython.

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        PyObject* context
    ctypedef struct PyMethodDef:
        const char* ml_name
    ctypedef struct PyCodeObject:
        int co_argcount
        int co_kwonlyargcount
        int co_flags
        int co_firstlineno
        PyObject* co_filename
        PyObject* co_name
        PyObject* co_qualname
    int CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
    PyTypeObject* Py_TYPE(PyObject*) noexcept
    bint PyUnicode_CheckExact(PyObject*) noexcept
    const char* PyUnicode_AsUTF8AndSize(PyObject*, Py_ssize_t*) noexcept
    PyObject* PyUnicode_AsEncodedString(PyObject*, const char*, const char*) noexcept
    int PyUnicode_CompareWithASCIIString(PyObject*, const char*) noexcept
    char* PyBytes_AS_STRING(PyObject*) noexcept
    Py_ssize_t PyBytes_GET_SIZE(PyObject*) noexcept
    void PyErr_Clear() noexcept
    void PyErr_Fetch(PyObject**, PyObject**, PyObject**) noexcept
    void PyErr_NormalizeException(PyObject**, PyObject**, PyObject**) noexcept
    void PyErr_Restore(PyObject*, PyObject*, PyObject*) noexcept
    bint PyErr_GivenExceptionMatches(PyObject*, PyObject*) noexcept
    int PyException_SetTraceback(PyObject*, PyObject*) noexcept
    PyObject* PyDict_GetItemString(PyObject*, const char*) noexcept
    bint PyModule_Check(PyObject*) noexcept
    const char* PyModule_GetName(PyObject*) noexcept
    PyObject* PyModule_GetDict(PyObject*) noexcept
    bint PyType_Check(PyObject*) noexcept
    PyObject* PyWeakref_NewRef(PyObject*, PyObject*) noexcept
    object new_weak_reference "PyWeakref_NewRef"(object, PyObject*)  # or raises MemoryError
    unsigned long PyThread_get_thread_ident() noexcept
    int PyCode_Addr2Line(PyCodeObject*, int) noexcept
    int PyContextVar_Get(PyObject*, PyObject*, PyObject**) noexcept
    PyObject* PyContextVar_Set(PyObject*, PyObject*) except NULL
    bint PyLong_CheckExact(PyObject*) noexcept
    bint PyFloat_CheckExact(PyObject*) noexcept
    bint PyBool_Check(PyObject*) noexcept
    long long PyLong_AsLongLongAndOverflow(PyObject*, int*) noexcept
    double PyFloat_AS_DOUBLE(PyObject*) noexcept
    PyObject* Py_None
    int PyIter_Send(object, object, PyObject**) except -1
    int PYGEN_RETURN
    object PyLong_FromVoidPtr(void*)
    int PyGC_Disable() noexcept
    int PyGC_Enable() noexcept
    int Py_AddPendingCall(int (*)(void*) noexcept, void*) noexcept nogil

cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock() noexcept
    void PyThread_free_lock(PyThread_type_lock) noexcept
    int PyThread_acquire_lock(PyThread_type_lock, int) noexcept nogil
    int PyThread_acquire_lock_timed(PyThread_type_lock, long long, int) noexcept nogil
    void PyThread_release_lock(PyThread_type_lock) noexcept nogil
    int WAIT_LOCK, PY_LOCK_ACQUIRED

cdef extern from "object.h":
    pass

cdef extern from "fnmatch.h":
    int fnmatch(const char*, const char*, int) noexcept nogil

cdef extern from "event.hpp" namespace "pyscope" nogil:
    uint64_t MAX_CODE "pyscope::kMaxCode"
    uint64_t MAX_EXCEPTION "pyscope::kExceptionMask"
    unsigned CODE_SHIFT "pyscope::kCodeShift"
    ctypedef enum PayloadType "pyscope::PayloadType":
        PAYLOAD_CONTEXT "pyscope::PayloadType::Context"
    ctypedef struct ProbeHead:
        uint16_t kind, numbers, text_bytes, texts
        uint64_t scope

cdef extern from "recording.hpp" namespace "pyscope" nogil:
    ctypedef struct ClockPair:
        uint64_t ticks
        int64_t monotonic_ns
        int64_t unix_ns
    ctypedef struct ProcessInfo:
        uint8_t recording_id[16]
        uint8_t process_id[16]
        uint32_t pid, parent_pid, clock_kind, time_shift, flight
        ClockPair start
        ClockPair start2
        char ring_path[1024]
    ctypedef struct Summary:
        uint64_t events, drain_cpu_ns
    ctypedef enum ProcessState "pyscope::ProcessState":
        STATE_STOPPED "pyscope::ProcessState::Stopped"
        STATE_WRITE_FAILED "pyscope::ProcessState::WriteFailed"
    ctypedef struct RecordHeader:
        uint32_t length
        uint16_t type
        uint16_t reserved
    ctypedef struct StringRecord:
        RecordHeader header
        uint32_t id
        uint32_t bytes
    ctypedef struct CodeRecord:
        RecordHeader header
        uint32_t id, module, qualname, file, line
        uint16_t arity, flags
    ctypedef struct ExceptionRecord:
        RecordHeader header
        uint32_t id, name
    ctypedef struct LocationRecord:
        RecordHeader header
        uint32_t id, file, function, line
    ctypedef struct StackRecord:
        RecordHeader header
        uint32_t id, caller, location, reserved
    ctypedef struct QuietingRecord:
        RecordHeader header
        uint32_t id, code
        uint64_t first_ticks, last_ticks, calls, low, high
        uint32_t windows, reserved
    size_t MAX_PAYLOAD "pyscope::kMaxPayloadBytes"
    uint16_t RECORD_LOCATION "(uint16_t)pyscope::RecordType::Location"
    uint16_t RECORD_STACK "(uint16_t)pyscope::RecordType::Stack"
    uint16_t RECORD_QUIETING "(uint16_t)pyscope::RecordType::Quieting"
    uint16_t RECORD_STRING "(uint16_t)pyscope::RecordType::String"
    uint16_t RECORD_CODE "(uint16_t)pyscope::RecordType::Code"
    uint16_t RECORD_EXCEPTION "(uint16_t)pyscope::RecordType::Exception"
    uint16_t FLAG_GENERATOR "pyscope::kGenerator"
    uint16_t FLAG_COROUTINE "pyscope::kCoroutine"
    uint16_t FLAG_ASYNC_GENERATOR "pyscope::kAsyncGenerator"
    uint16_t FLAG_C_FUNCTION "pyscope::kCFunction"
    cppclass AtomicU64 "std::atomic<uint64_t>":
        uint64_t load()
        void store(uint64_t)
        uint64_t fetch_add(uint64_t)
    cppclass AtomicU32 "std::atomic<uint32_t>":
        uint32_t load()
        void store(uint32_t)
    ctypedef struct RingHeader:
        uint64_t file_bytes
        AtomicU64 dropped, events_saved

cdef extern from "clock.hpp" namespace "pyscope" nogil:
    uint64_t ticks()
    ClockPair read_clock_pair()
    double tick_ns(const ClockPair&, const ClockPair&)
    int clock_kind "(int)pyscope::clock_kind"()

cdef extern from "event_counts.hpp" namespace "pyscope" nogil:
    ctypedef struct EventCount:
        uint64_t events, calls, leaves
    cppclass EventCounts:
        size_t kCodes
        EventCounts()
        EventCount take(size_t)

cdef extern from "ring.hpp" namespace "pyscope" nogil:
    cppclass RingOptions:
        string path
        size_t bytes
        ProcessInfo info
        string meta
    cppclass RingFile:
        RingHeader& header()
        uint32_t page_count()
        uint64_t order()
        const string& path()
        bint append_record(const void*, size_t)
        bint replace_record(uint64_t&, const void*, size_t)
        void count_events(EventCounts*)
        void unlink()
        string meta()
        void call_on_next_seal(void (*)() noexcept nogil)
        @staticmethod
        bint owner_alive(const string&)

cdef extern from "recording_file.hpp" namespace "pyscope" nogil:
    cppclass RecordingFile:
        bint write_summary(Summary)
        uint64_t bytes()
    ctypedef struct AdoptReport:
        uint32_t pages
        uint64_t events, dropped
    AdoptReport adopt_ring "pyscope::adopt"(const string&, const string&) except +OSError
    AdoptReport dump_ring(RingFile&, const string&) except +OSError

cdef extern from "drain.hpp" namespace "pyscope" nogil:
    cppclass Drain:
        cbool catch_up(double) noexcept
        bint finish(double) noexcept
        bint pause(double) noexcept
        bint resume() noexcept
        bint failed()
        int error()
        Summary summary(ProcessState)
        uint64_t cpu_ns()

cdef extern from "hook.hpp" namespace "pyscope":
    ctypedef struct Frame:
        pass
    cppclass SeenContext:
        PyObject* reference
        uint64_t serial
        uint64_t named_to
    cppclass ThreadRing:
        PyObject* python_context
        SeenContext task
        PyObject* loop
        SeenContext greenlet
        SeenContext left_greenlet
        bint in_greenlet
        void set_name(const char*)
        void set_context(uint64_t)
        uint64_t context()
        RingFile* file()
        void emit_payload(PayloadType, const void*, size_t)
    ctypedef struct SlowPaths:
        uint64_t (*resolve)(PyCodeObject*, Frame*) noexcept
        uint32_t (*c_function)(PyObject*) noexcept
        uint32_t (*exception)(PyTypeObject*) noexcept
        void (*new_thread)(ThreadRing*, Frame*) noexcept
        void (*switch_context)(ThreadRing*, PyThreadState*) noexcept
        void (*switch_greenlet)(ThreadRing*, PyObject*) noexcept
        void (*find_greenlet)() noexcept
    cppclass Hook:
        uint32_t generation
        bint active
        Py_ssize_t extra_index
        SlowPaths slow
        PyObject* disable
        bint profile_has_company
        bint evicted
        PyObject* current_tasks
        PyObject* trio_run
        bint greenlet_imported
        PyObject* (*current_greenlet)() noexcept
        PyObject* (*greenlet_parent)(PyObject*) noexcept
        AtomicU32 window
        bint windowed
        AtomicU64 faults
        RingFile* file
        uint32_t threads
        uint64_t frames
    Hook hook
    PyObject* seen(const SeenContext&)
    cppclass ErrorGuard:
        ErrorGuard()
    uint64_t SELECTED "pyscope::kSelected"
    uint64_t SUSPENDS "pyscope::kSuspends"
    uint64_t AWAITS "pyscope::kAwaits"
    uint64_t RESOLVED "pyscope::kResolved"
    uint64_t WATCHED "pyscope::kWatched"
    uint64_t QUIETED "pyscope::kQuieted"
    uint64_t USER "pyscope::kUser"
    bint is_python_frame(const Frame*) noexcept
    Frame* caller_of(const Frame*) noexcept
    int instruction_offset(Frame*) noexcept
    Frame* frame_of(PyObject*) noexcept
    void close_all_rings() noexcept
    void count_all_rings() noexcept
    void mark_quieted(uint32_t) noexcept
    uint64_t decision(PyCodeObject*) noexcept
    void install_fork_handlers() noexcept
    bint TASK_IN_THREAD "pyscope::kTaskInThread"
    PyObject* current_task(ThreadRing*) noexcept
    void forget(SeenContext*) noexcept
    void go_on_in(ThreadRing*, uint64_t) noexcept
    PyCodeObject* frame_code(const Frame*) noexcept
    Frame* current_frame(PyThreadState*) noexcept
    PyThreadState* current_thread() noexcept
    Py_ssize_t REQUEST_CODE_EXTRA "PYSCOPE_REQUEST_CODE_EXTRA"(void (*)(void*) noexcept) noexcept
    int SET_CODE_EXTRA "PYSCOPE_SET_CODE_EXTRA"(PyObject*, Py_ssize_t, void*) noexcept

cdef extern from "frame.hpp" namespace "pyscope":
    ctypedef PyObject* (*EvalFunction "_PyFrameEvalFunction")(PyThreadState*, Frame*, int) noexcept
    EvalFunction eval_frame_plain "pyscope::eval_frame<pyscope::FrameHook::Plain>"
    EvalFunction eval_frame_windows "pyscope::eval_frame<pyscope::FrameHook::Windows>"
    EvalFunction eval_frame_governed "pyscope::eval_frame<pyscope::FrameHook::Governed>"
    bint hold_out_eval(bint) noexcept
    EvalFunction eval_frame_empty
    bint install_eval(EvalFunction) noexcept
    bint remove_eval() noexcept

cdef extern from "setprofile.hpp" namespace "pyscope":
    ctypedef int (*TraceFunction "Py_tracefunc")(PyObject*, void*, int, PyObject*) noexcept
    TraceFunction profile_everything
    TraceFunction profile_nothing
    EvalFunction eval_frame_beside_profile
    void profile_python_with_c_calls(bint) noexcept
    int arm_all_threads(TraceFunction) noexcept
    void change_windows() noexcept

cdef extern from "monitoring.hpp" namespace "pyscope":
    ctypedef int MonitoringEvent "pyscope::MonitoringEvent"
    ctypedef int CallbackKind "pyscope::CallbackKind"
    int EVENT_START "(int)pyscope::MonitoringEvent::Start"
    int EVENT_RESUME "(int)pyscope::MonitoringEvent::Resume"
    int EVENT_RETURN "(int)pyscope::MonitoringEvent::Return"
    int EVENT_YIELD "(int)pyscope::MonitoringEvent::Yield"
    int EVENT_THROW "(int)pyscope::MonitoringEvent::Throw"
    int EVENT_UNWIND "(int)pyscope::MonitoringEvent::Unwind"
    int CALLBACK_RECORD "(int)pyscope::CallbackKind::Record"
    int CALLBACK_WINDOWS "(int)pyscope::CallbackKind::RecordWithWindows"
    int CALLBACK_WATCHED "(int)pyscope::CallbackKind::Watched"
    int CALLBACK_NEW "(int)pyscope::CallbackKind::New"
    int CALLBACK_EMPTY "(int)pyscope::CallbackKind::Empty"

cdef extern from "superinstructions.hpp" namespace "pyscope":
    void join_instructions(PyCodeObject*) noexcept
    bint HAS_SUPERINSTRUCTIONS "pyscope::kHasSuperinstructions"
    bint superinstructions_are(PyObject*) noexcept

cdef extern from "glue.hpp" namespace "pyscope":
    uint8_t CONTEXT_TASK "(uint8_t)pyscope::ContextKind::Task"
    uint8_t CONTEXT_GREENLET "(uint8_t)pyscope::ContextKind::Greenlet"
    object make_callback "pyscope::make_callback_object"(int, int)
    bint is_callback(PyObject*) noexcept
    PyObject* frame_globals(Frame*) noexcept
    PyObject* first_local(Frame*) noexcept
    PyObject* code_first_parameter(PyCodeObject*) noexcept
    PyMethodDef* method_def(PyObject*) noexcept
    PyObject* method_self(PyObject*) noexcept
    bint is_heap_type(PyTypeObject*) noexcept
    PyObject* heap_type_qualname(PyTypeObject*) noexcept
    PyObject* weakref_target(PyObject*) noexcept
    PyObject* getattr_static(PyObject*, const char*) noexcept
    void find_current_greenlet(PyObject*, bint) noexcept
    cppclass StepBegin:
        pass
    StepBegin begin_step() noexcept
    int64_t end_step(const StepBegin&) noexcept
    PyObject* next_step(PyObject*, int64_t*) noexcept
    ctypedef PyObject* (*NextFunction "iternextfunc")(PyObject*) noexcept
    void set_next(PyTypeObject*, NextFunction) noexcept
    ThreadRing* get_thread_ring() noexcept
    void open_thread_ring_here() noexcept
    void open_existing_rings() noexcept
    void arm_at_first_event "pyscope::first_event"(void*, int, PyObject*) noexcept
    bint foreign_eval() noexcept
    bint in_main_interpreter() noexcept
    bint is_main_thread() noexcept
    bint foreign_profiler() noexcept
    bint arm_by_hand(bint) noexcept
    bint emit_probe(const void*, size_t) noexcept
    cppclass LoadsHere:
        uint64_t serial
        uint64_t thread
        PyObject* loads
    LoadsHere loads_here
    uint64_t thread_number() noexcept
    uint64_t mixed_in(uint64_t, uint64_t) noexcept
    bint is_user_frame(Frame*) noexcept
    void code_freed(void*) noexcept
    int64_t thread_cpu_ns() noexcept
    RingFile* make_ring_file(const RingOptions&) except NULL
    RingFile* attach_ring(const string&, bint) except NULL
    RecordingFile* make_recording_file(const string&, const ProcessInfo&, const string&) except NULL
    Drain* start_drain(RingFile*, RecordingFile*, const string&, void (*)() noexcept nogil) except NULL
    void lock_life() noexcept nogil
    bint lock_life_for(double) noexcept nogil
    void unlock_life() noexcept nogil
    void fill_info(ProcessInfo*, bytes, bytes, uint32_t, bint, const string&)
    int64_t monotonic_ns() noexcept nogil
    int64_t load_relaxed(const int64_t*) noexcept nogil
