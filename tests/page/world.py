"""A small realistic world in the API's shapes: agents, runs with their events, signals with words, issues.

Built anew for each `now` (Unix seconds), the same otherwise, so that a screenshot or a test can be read again.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=2</script>\u202egnp.exe\u0000\u001b[31m'
LONG = "agent-" + "é̂̃A" * 2500


@dataclass
class World:
    """What the API knows. `runs` are run-detail answers by id; `signals` and `issues` are lists over all agents."""

    now: float
    agents: list[Json] = field(default_factory=list)
    runs: dict[str, Json] = field(default_factory=dict)
    signals: list[Json] = field(default_factory=list)
    issues: list[Json] = field(default_factory=list)
    deploys: dict[str, list[Json]] = field(default_factory=dict)  # by agent
    rises: list[Json] = field(default_factory=list)  # fleet signals of all agents, newest first
    fixes: list[Json] = field(default_factory=list)  # of all agents, newest first


class Script:
    """Writes the events of one run, each call with the time it took."""

    def __init__(self, start: float, model: str, tools: list[str], **more: Any) -> None:
        self.at, self.step, self.events = start, 0, list[Json]()
        self.tokens = 0
        self.model = model
        self._add(
            "run.started", 0, {"input_hash": digest("in", int(start) % 6), "model": model, "tools": tools, **more}
        )

    def _add(self, event_type: str, step: int, payload: Json) -> None:
        self.events.append(
            {
                "event_type": event_type,
                "step_index": step,
                "timestamp": self.at,
                "payload": payload,
                "parent_run_id": None,
            }
        )

    def llm(self, took_s: float, tokens: int, out: int = 90, finish: str = "tool_calls") -> None:
        self.step += 1
        self.tokens += tokens + out
        self._add("llm.called", self.step, {"model": self.model, "prompt_tokens": tokens, "call_id": self.step})
        self.at += took_s
        answer = {
            "completion_tokens": out,
            "latency_ms": took_s * 1000,
            "finish_reason": finish,
            "output_length": out * 4,
        }
        self._add("llm.responded", self.step, answer | {"output_hash": digest("out", self.at), "call_id": self.step})
        self.at += 0.02

    def tool(self, tool: str, took_s: float, args: str = "", *, failed: bool = False, answered: bool = True) -> None:
        self.step += 1
        self._add("tool.called", self.step, {"tool_name": tool, "args_hash": digest(tool, args), "call_id": self.step})
        if not answered:
            return
        self.at += took_s
        answer = {"tool_name": tool, "success": not failed, "latency_ms": took_s * 1000, "output_length": 1834}
        more = {"error_hash": digest("err", tool)} if failed else {"output_hash": digest(tool, args)}
        self._add("tool.responded", self.step, answer | more | {"call_id": self.step})
        self.at += 0.01

    def retrieve(self, index: str, took_s: float, results: int, score: float | None) -> None:
        self.step += 1
        self._add("retrieval.called", self.step, {"index_name": index, "query_hash": digest(index)})
        self.at += took_s
        answer = {"index_name": index, "result_count": results, "top_score": score, "latency_ms": took_s * 1000}
        self._add("retrieval.responded", self.step, answer)
        self.at += 0.01

    def user(self) -> None:
        self.at += 9.0
        self._add("user.message", self.step, {"input_hash": digest("user", self.at), "input_length": 61})

    def end(self, event_type: str = "run.completed") -> None:
        done = {"total_steps": self.step, "exit_reason": "final_answer", "tool_call_count": 3}
        broke = {"error_type": "TimeoutError", "error_hash": digest("boom"), "step_index": self.step}
        self._add(event_type, self.step, done if event_type == "run.completed" else broke)


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def loop(start: float) -> Script:
    run = Script(start, "gpt-4o", ["web_search", "open_page", "summarise"])
    run.llm(1.3, 820)
    run.tool("web_search", 0.9, "dunes")
    run.llm(1.1, 1450)
    for _ in range(5):
        run.tool("web_search", 0.8, "dunes of morocco")
        run.llm(1.2, 2100)
    run.tool("open_page", 2.4, "x")
    run.llm(3.9, 5200, 640, "stop")
    return run


def support(start: float) -> Script:
    run = Script(start, "claude-sonnet-4-5", ["lookup_order", "refund", "kb"])
    run.retrieve("help-centre", 0.35, 6, 0.81)
    run.llm(1.8, 1200)
    run.tool("lookup_order", 0.4, "1")
    run.llm(1.5, 1900, 120, "stop")
    run.user()
    run.retrieve("help-centre", 0.3, 0, None)
    run.llm(1.2, 2400)
    run.tool("refund", 0.7, "1")
    run.llm(1.6, 2600, 200, "stop")
    return run


def failing(start: float) -> Script:
    run = Script(start, "gpt-4o-mini", ["fetch_rates", "book"])
    run.llm(0.9, 640)
    for attempt in range(4):
        run.tool("fetch_rates", 1.0 + attempt, "EUR", failed=True)
    run.llm(1.1, 990)
    return run


def slow(start: float) -> Script:
    run = Script(start, "claude-sonnet-4-5", ["run_query", "plot"])
    run.llm(2.0, 3000)
    run.tool("run_query", 41.0, "big")
    run.llm(4.4, 6100)
    run.tool("plot", 1.2, "a")
    run.llm(3.1, 6900, 300, "stop")
    return run


def thinking(start: float) -> Script:
    run = Script(start, "o4-mini", ["calculator"])
    run.tool("calculator", 0.1, "1")
    for i in range(9):
        run.llm(2.0 + i * 0.3, 900 + 400 * i, 310, "stop")
    return run


def injected(start: float) -> Script:
    scan = {"matched_pattern_count": 2, "matched_patterns": ["ignore_instructions", "act_as"], "input_length": 512}
    run = Script(
        start, "gpt-4o", ["send_mail"], injection_signal=scan | {"scan_truncated": False, "scanned_chars": 512}
    )
    run.llm(1.0, 700)
    run.tool("send_mail", 0.5, "m")
    run.llm(0.9, 820, 60, "stop")
    return run


WORDS: dict[str, tuple[str, str, str, str, str, str]] = {
    "TOOL_LOOP": (
        "HIGH",
        "web_search was called 5 times with the same arguments",
        "Within a window of 5 tool calls the agent called web_search with equal arguments each time, from step 4 on. "
        "Every answer was the same, so nothing it learned could change what it did next.",
        "A run that repeats itself spends tokens and time without coming closer to an answer, and often ends only at a "
        "step limit or a timeout.",
        "5 equal calls in a window of 5 (threshold 3), steps 4 to 12; 4 wasted calls, about 8,840 tokens.",
        "if last_calls.count((name, args)) >= 3:\n"
        '    messages.append({"role": "user", "content": "You have this answer already. Use it, or stop."})',
    ),
    "PROMPT_INJECTION_SIGNAL": (
        "CRITICAL",
        "The input matches 2 known injection patterns",
        "Before the first step, the user's input matched the rules ignore_instructions and act_as. The text itself "
        "never left the agent; only the names of the rules did.",
        "Input that rewrites the agent's instructions can make it use its tools for somebody else.",
        "2 rules matched in 512 characters, all of them scanned.",
        "if run.state.injection is not None:\n    raise PermissionError('input refused')",
    ),
    "RETRY_STORM": (
        "HIGH",
        "fetch_rates failed 4 times in a row",
        "The agent called fetch_rates again at once after each failure. The error was the same every time.",
        "Retries without a pause keep a struggling service down and rarely succeed.",
        "4 failures in a row (threshold 3), steps 2 to 5, the same error; 10.0 s spent.",
        "@retry(wait=wait_exponential(max=30), stop=stop_after_attempt(3))\ndef fetch_rates(currency: str): ...",
    ),
    "SLOW_STEP": (
        "MEDIUM",
        "run_query took 41.0 s",
        "The tool call at step 2 took 41.0 s, more than the 15 s that a tool call may take.",
        "The person waiting sees nothing happen, and a timeout further up may end the run half done.",
        "41,000 ms against 15,000 ms (2.7 times).",
        "result = await asyncio.wait_for(run_query(sql), timeout=15)",
    ),
    "REASONING_STALL": (
        "MEDIUM",
        "9 model calls for 1 tool call",
        "The agent called the model nine times and acted once. After step 1 it never used a tool again.",
        "Thinking without acting usually means that the agent doesn't know which tool to use, or can't.",
        "Ratio 9.0 (threshold 4.0) over 9 model calls.",
        "tool_choice = 'required' if turns_without_tool >= 3 else 'auto'",
    ),
    "RAG_EMPTY_RETRIEVAL": (
        "MEDIUM",
        "help-centre gave nothing, and the agent answered anyway",
        "The retrieval at step 5 found no documents. The run still ended with an answer.",
        "An answer without sources is made up, or at least not what the index was built for.",
        "0 results (at least 1 expected).",
        "if not documents:\n    return ask_to_rephrase()",
    ),
}  # fmt: skip

EVIDENCE: dict[str, Json] = {
    "TOOL_LOOP": {
        "kind": "equal",
        "tool_name": "web_search",
        "count": 5,
        "window": 5,
        "wasted_ms": 8100,
        "wasted_tokens": 8840,
        "args_hash": "3b6c5b4537d53e449f1d6c1a3b6c5b45",
        "threshold": 3,
        "steps": [4, 6, 8],
    },
    "PROMPT_INJECTION_SIGNAL": {"matched_pattern_count": 2, "matched_patterns": ["ignore_instructions", "act_as"]},
    "RETRY_STORM": {"tool_name": "fetch_rates", "failures": 4, "threshold": 3, "same_error": True},
    "SLOW_STEP": {"duration_ms": 41000.0, "limit_ms": 15000, "tool_name": "run_query"},
    "REASONING_STALL": {"llm_calls": 9, "tool_calls": 1, "ratio": 9.0, "threshold": 4.0},
    "RAG_EMPTY_RETRIEVAL": {"index_name": "help-centre", "result_count": 0, "top_score": None},
}

STEPS = {
    "TOOL_LOOP": 8,
    "RETRY_STORM": 5,
    "SLOW_STEP": 2,
    "REASONING_STALL": 6,
    "RAG_EMPTY_RETRIEVAL": 5,
    "PROMPT_INJECTION_SIGNAL": 0,
}

FLEET = [  # agent, how its runs go, what is found in the bad ones, runs, share of bad ones
    ("research-agent", loop, ["TOOL_LOOP"], 34, 0.3),
    ("support-triage", support, ["RAG_EMPTY_RETRIEVAL"], 120, 0.06),
    ("fx-booking", failing, ["RETRY_STORM"], 18, 0.5),
    ("bi-analyst", slow, ["SLOW_STEP"], 26, 0.2),
    ("mail-assistant", injected, ["PROMPT_INJECTION_SIGNAL"], 41, 0.05),
    ("planner/v2", thinking, ["REASONING_STALL"], 22, 0.25),
    ("invoice-reader", support, [], 64, 0.0),
]


SPREAD = {"research-agent": 9.0, "fx-booking": 3.0}  # how much longer ago their runs lie


def build(now: float) -> World:
    """The whole world, seen at `now`."""
    rng = random.Random(7)
    world = World(now)
    for rank, (agent_id, script, types, runs, share) in enumerate(FLEET):
        for n in range(runs):
            age = 20.0 + rank * 95 + n * rng.uniform(900, 9000) * SPREAD.get(agent_id, 1)
            bad = bool(types) and rng.random() < share
            _run(
                world, agent_id, script(now - age) if bad or not types else healthy(now - age), types if bad else [], n
            )
    world.deploys["research-agent"] = [
        {"version": digest("research-agent", n)[:8], "deployed_at": now - age * 86400}
        for n, age in ((0, 12.3), (1, 3.6))
    ]
    _running(world)
    summarise(world)
    world.rises.append(_rise(now))
    looped = next(s for s in world.signals if s["agent_id"] == "research-agent")
    world.fixes.append(
        {
            "signal_id": looped["id"], "failure_type": looped["failure_type"], "fix_type": "prompt_addition",
            "applied_via": "clipboard", "verdict": "still_occurring", "applied_at": now - 86400,
        }
    )  # fmt: skip
    return world


def _rise(now: float) -> Json:
    return {
        "id": 1, "agent_id": "research-agent", "failure_type": "TOOL_LOOP", "severity": "HIGH", "scope": "version",
        "subject": version("research-agent", 1), "since": now - 9000, "title": "", "runs": 80, "affected_runs": 25,
        "rate": 0.3125, "runs_before": 200, "affected_runs_before": 8, "rate_before": 0.04, "run_id": "run",
        "found_at": now - 500, "over_at": None,
    }  # fmt: skip


def healthy(start: float) -> Script:
    run = Script(start, "gpt-4o", ["lookup", "answer"])
    run.llm(1.1, 700)
    run.tool("lookup", 0.6, "q")
    run.llm(1.4, 1100, 160, "stop")
    return run


def _run(world: World, agent_id: str, script: Script, types: list[str], n: int) -> Json:
    errored = "RETRY_STORM" in types
    script.end("run.errored" if errored else "run.completed")
    run = detail(agent_id, script, "run.errored" if errored else "run.completed")
    if n % 29 == 17:
        run |= {"status": "stalled", "exit_reason": "stalled", "completed_at": None}
        run["events"].pop()
    add(world, run, types)
    return run


def _running(world: World) -> None:
    script = loop(world.now - 24)
    script.tool("open_page", 0, "y", answered=False)
    run = detail("research-agent", script, "") | {"status": "running", "completed_at": None}
    add(world, run, ["TOOL_LOOP"])
    parked = detail("bi-analyst", healthy(world.now - 4000), "run.completed")
    add(world, parked | {"status": "parked", "parked_error": "SLOW_STEP: KeyError at slow_step.py:41"}, [])


def detail(agent_id: str, script: Script, exit_reason: str, run_id: str | None = None) -> Json:
    events = script.events
    calls = [event for event in events if event["event_type"].endswith(".called")]
    return {
        "run_id": run_id or str(uuid.UUID(digest(agent_id, events[0]["timestamp"])[:32])),
        "agent_id": agent_id,
        "agent_version": version(agent_id, int(events[0]["timestamp"] // (5 * 86400))),
        "status": "ended",
        "started_at": events[0]["timestamp"],
        "completed_at": events[-1]["timestamp"],
        "exit_reason": exit_reason,
        "step_count": len(calls),
        "total_tokens": script.tokens,
        "total_cost_usd": None,
        "parent_run_id": None,
        "dropped_events": 0,
        "parked_error": None,
        "event_count": len(events),
        "events_truncated": False,
        "events": events,
        "signals": [],
    }


def version(agent_id: str, n: int) -> str:
    """One of two, so that versions can be compared."""
    return digest(agent_id, n % 2)[:8]


def add(world: World, run: Json, types: list[str]) -> None:
    """Puts a run into the world, with a signal for each of `types`."""
    world.runs[run["run_id"]] = run
    for failure_type in types:
        severity, title, what, why, summary, code = WORDS[failure_type]
        signal = {
            "id": len(world.signals) + 1,
            "failure_type": failure_type,
            "severity": severity,
            "run_id": run["run_id"],
            "agent_id": run["agent_id"],
            "agent_version": run["agent_version"],
            "step_index": STEPS[failure_type],
            "confidence": 0.86,
            "detected_at": (run["completed_at"] or world.now - 2) + 0.2,
            "evidence": EVIDENCE[failure_type],
            "alerted": len(world.signals) % 2 == 0,
            "shadow": len(world.signals) % 9 == 4,
            "title": title,
            "what": what,
            "why_it_matters": why,
            "evidence_summary": summary,
            "suggested_fixes": [
                {"description": "Stop the repetition in the agent's loop.", "language": "python", "code": code},
                {
                    "description": "Say in the system prompt when to stop.",
                    "language": "text",
                    "code": "If a tool gives you the same answer twice, stop calling it and say what is missing.",
                },
            ],
        }
        world.signals.append(signal)
        run["signals"].append(signal)


def summarise(world: World) -> None:
    """Makes the agents and issues of the world from its runs and signals, as the API's totals are."""
    by_agent: dict[str, list[Json]] = {}
    for run in world.runs.values():
        run["signal_count"] = sum(not signal["shadow"] for signal in run["signals"])
        run["has_signals"] = run["signal_count"] > 0
        by_agent.setdefault(run["agent_id"], []).append(run)
    world.agents = [_agent(world, agent_id, runs) for agent_id, runs in by_agent.items()]
    world.agents.sort(key=lambda agent: -agent["last_seen"])
    world.issues = [issue for agent in world.agents for issue in _issues(world, agent)]


def _live(world: World, agent_id: str) -> list[Json]:
    return [signal for signal in world.signals if signal["agent_id"] == agent_id and not signal["shadow"]]


def _agent(world: World, agent_id: str, runs: list[Json]) -> Json:
    live = _live(world, agent_id)
    today = int(world.now // 86400)
    days = [0] * 7
    by_severity: dict[str, list[int]] = {}
    types: dict[str, int] = {}
    for signal in live:
        types[signal["failure_type"]] = types.get(signal["failure_type"], 0) + 1
        index = 6 - (today - int(signal["detected_at"] // 86400))
        if 0 <= index < 7:
            days[index] += 1
            by_severity.setdefault(signal["severity"], [0] * 7)[index] += 1
    return {
        "agent_id": agent_id,
        "last_seen": max(run["events"][-1]["timestamp"] for run in runs),
        "run_count": len(runs),
        "signal_count": len(live),
        "critical_count": sum(signal["severity"] == "CRITICAL" for signal in live),
        "high_count": sum(signal["severity"] == "HIGH" for signal in live),
        "sparkline": days,
        "severity_sparklines": by_severity,
        "failure_types": types,
        "dropped_events": 12 if agent_id == "fx-booking" else 0,
    }


def _issues(world: World, agent: Json) -> list[Json]:
    issues = []
    for failure_type in agent["failure_types"]:
        of_type = [s for s in _live(world, agent["agent_id"]) if s["failure_type"] == failure_type]
        seen = sorted(signal["detected_at"] for signal in of_type)
        clean = (len(failure_type) * 3 + 2) % 7
        issues.append(
            {
                "id": sum(map(ord, agent["agent_id"] + failure_type)),
                "agent_id": agent["agent_id"],
                "failure_type": failure_type,
                "status": "resolved" if clean >= 5 else "reopened" if clean == 3 else "open",
                "first_seen": seen[0],
                "last_seen": seen[-1],
                "resolved_at": seen[-1] + 900 if clean >= 5 else None,
                "affected_runs": len(seen),
                "clean_runs_since": clean,
                "acknowledged_at": None,
                "snoozed_until": None,
            }
        )
    return issues
