"""Recorded runs of real agents, turned into the events our SDK would have sent: no server, no clock."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dunetrace.events import Event
from dunetrace.hashing import Hasher, canonical, canonical_text
from dunetrace.injection import scan
from tests.detection.building import Script
from tests.shared import shared

_HASHER = Hasher()


class Recorded(NamedTuple):
    """One recorded run: its row in the data, and its events."""

    row: dict[str, Any]
    events: list[Event]


class FormatError(Exception):
    """A file of recorded runs that cannot be read; the message says which, where, and what is asked of it."""


def read(path: Path) -> list[Recorded]:
    """The runs of a file of one's own: JSON lines, gzipped or not, in either format. Raises FormatError."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read ({type(error).__name__})") from None
    return [_read_line(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _read_line(path: Path, number: int, line: str) -> Recorded:
    try:
        row = json.loads(line)
        make = _airline_run if "messages" in row else _structure_run
        return Recorded(row, list(make(row)))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration, RuntimeError) as error:
        raise FormatError(
            f"{path}, line {number}: not a recorded run ({type(error).__name__}: {error}). A line is an object with "
            "id, agent, success, and either model, messages and llm_prompt_chars, or events"
        ) from None


def _rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(shared(f"data/{name}.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def airline() -> list[Recorded]:
    """The 200 customer-service runs; each message of the customer after the first is a turn within the run."""
    rows = _rows("tau-airline")
    return [Recorded(row, list(_airline_run(row))) for row in rows]


def _airline_run(row: dict[str, Any]) -> Iterator[Event]:
    script = Script(row["id"], row["agent"])
    tools = sorted({call["name"] for message in row["messages"] for call in message.get("tool_calls") or ()})
    prompt_chars = iter(row["llm_prompt_chars"])
    begun = False
    for message in row["messages"]:
        text = message.get("content") or ""
        if message["role"] == "user":
            found = scan(text)
            payload: dict[str, Any] = {"input_hash": _HASHER.text(text), "input_length": len(text)}
            if found is not None:
                payload["injection_signal"] = found.payload()
            if begun:
                script.user(**payload)
            else:
                script.started(**payload, model=row["model"], tools=tools)
            begun = True
        elif message["role"] == "assistant":
            calls = message.get("tool_calls") or []
            script.llm(
                "tool_calls" if calls else "stop",
                prompt_tokens=next(prompt_chars) // 4,
                completion_tokens=len(text) // 4 + 1,
            )
            for call in calls:
                arguments = canonical_text(call["arguments"])
                script.called(call["name"], args_hash=_HASHER.text(arguments), args_shape_hash=_HASHER.shape(arguments))
        else:
            failed = text.startswith("Error")
            payload = {"output_hash": _HASHER.text(canonical(text)), "output_length": len(text)}
            if failed:
                payload = {"error_hash": _HASHER.text(text), "error_shape_hash": _HASHER.shape(text)}
            script.emit("tool.responded", tool_name=message["name"], success=not failed, latency_ms=100, **payload)
    script.completed("final_answer")
    return iter(script)


def magentic() -> list[Recorded]:
    """The 25 web-browsing runs, structure only; `loop_steps` says how often their orchestrator saw itself in a loop."""
    return [Recorded(row, list(_structure_run(row))) for row in _rows("magentic")]


def captain() -> list[Recorded]:
    """The 59 runs of teams that write code, structure only; they begin with an agent's word, not the user's."""
    return [Recorded(row, list(_structure_run(row))) for row in _rows("captain")]


def _structure_run(row: dict[str, Any]) -> Iterator[Event]:
    script = Script(row["id"], row["agent"])
    script.started(tools=sorted({event["tool"] for event in row["events"] if event["kind"] == "tool"}))
    for event in row["events"][row["events"][0]["kind"] == "user" :]:
        if event["kind"] == "user":
            script.user(input_length=event["chars"])
        elif event["kind"] == "llm":
            script.llm(None, completion_tokens=event["chars"] // 4)
        else:
            script.called(event["tool"], **({"args_hash": event["args_sha"]} if event["args_sha"] else {}))
            script.emit(
                "tool.responded",
                tool_name=event["tool"],
                success=event["ok"],
                output_hash=event["sha"],
                output_length=event["chars"],
            )
    script.completed("completed")
    return iter(script)
