"""Deterministic checks of concurrent code: run an answer in virtual time, count what it did, say what is wrong.

from scalelab import checks

with checks.verdict("ordered") as expect:
    server = checks.Server(latency=(0.05, 0.5), seed=8)
    run = checks.run(lambda: fetch_all(server.urls(20)), server=server, returns=list)
    expect(run.sessions == 1, "one session serves all requests", otherwise="A session is a pool of connections …")

checks.hint("ordered")        # one more hint each time
checks.solution("ordered")    # once it has passed

Each verdict is data, too: `checks.verdicts` holds those of this process, in their order.
"""

from scalelab.checks._interleave import Interleaving, ThreadDeadlock, interleave, together
from scalelab.checks._network import Page, PageError, Request, Server
from scalelab.checks._run import AnswerFailed, NestedRun, NotAwaitable, Run, run
from scalelab.checks._side import (
    AnswerEnded,
    Clock,
    assemble,
    beside,
    by_reference,
    call_each,
    called_in_loop,
    count_lines,
    defined_names,
    instances,
    shared,
    shared_list,
    source,
    time_calls,
)
from scalelab.checks._verdict import (
    CheckFailed,
    EmptyCheck,
    Expect,
    Expectation,
    Verdict,
    hint,
    solution,
    verdict,
    verdicts,
)
from scalelab.checks._words import Idea, Unmet
from scalelab.checks._world import Blocking, Deadlock, NeverEnds, Stuck

__all__ = [
    "AnswerEnded",
    "AnswerFailed",
    "Blocking",
    "CheckFailed",
    "Clock",
    "Deadlock",
    "EmptyCheck",
    "Expect",
    "Expectation",
    "Idea",
    "Interleaving",
    "NestedRun",
    "NeverEnds",
    "NotAwaitable",
    "Page",
    "PageError",
    "Request",
    "Run",
    "Server",
    "Stuck",
    "ThreadDeadlock",
    "Unmet",
    "Verdict",
    "assemble",
    "beside",
    "by_reference",
    "call_each",
    "called_in_loop",
    "count_lines",
    "defined_names",
    "hint",
    "instances",
    "interleave",
    "run",
    "shared",
    "shared_list",
    "solution",
    "source",
    "time_calls",
    "together",
    "verdict",
    "verdicts",
]
