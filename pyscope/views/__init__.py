"""Views: what people look at, as plain values ready for JSON; of a saved recording and of a living one alike.

Each is a pure function of a trace in a file of its own::

    source.hello(trace)                     what is looked at: the first message
    metrics.message(trace, step_ms)         {"type": "metrics", …}; metrics.samples gives its list
    requests.message(trace, limit)          {"type": "traces", …}
    findings.message(trace, limit)          {"type": "findings", …}
    supervision.message(trace, limit)       {"type": "supervision", …}
    states.message(trace, limit)            {"type": "state", …}
    external.message(trace, limit)          {"type": "external", …}
    losses.message(trace)                   {"type": "losses", …}
    waterfall.of_request(trace, id)         one request, span by span; None if there is no such request
    flame.tree(trace, from_ms, to_ms)       merged call paths of a window
    functions.table(trace, order, pattern, limit)
    queries.table(trace, limit)

Ids are strings. `start_ms`, `time_ms` and `at_ms` are milliseconds of Unix time, other `*_ms` durations; both floats.
Everything is bounded: lists by `limit`, texts in length. Texts are valid Unicode, whatever the program called its
functions. A view raises for no trace that can be loaded.
"""
