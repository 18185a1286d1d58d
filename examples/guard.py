"""An agent that would loop for ever, stopped by the guard at the third identical call. No server, no key, no model.

python examples/guard.py
"""

from __future__ import annotations

from collections.abc import Iterator

from dunetrace import Dunetrace, DunetraceSignal, RunContext

dt = Dunetrace(endpoint=None, on_signal="raise")


def model() -> Iterator[dict[str, object]]:
    """Stands for a model that forgot it has asked this before."""
    while True:
        yield {"order": 4711}


def get_order(order: object) -> str:
    return f"Order {order}: in transit"


def agent(run: RunContext) -> None:
    for arguments in model():
        call = run.llm_called("gpt-4o", prompt_tokens=400)
        run.llm_responded(completion_tokens=20, finish_reason="tool_calls", call_id=call)
        call = run.tool_called("get_order", arguments)  # the third one raises, before the tool is called
        run.tool_responded("get_order", output=get_order(**arguments), call_id=call)


def main() -> None:
    try:
        with dt.run("order-agent", user_input="Where is my order?", model="gpt-4o", tools=["get_order"]) as run:
            agent(run)
    except DunetraceSignal as signal:
        print(f"{signal.severity} {signal.failure_type} at step {signal.step_index}: {signal.title}")
        print(signal.what)
        print(f"Try this: {signal.suggested_fixes[0].description}")
    print(f"The run ended as {run.exit_reason} after {run.step} steps.")


if __name__ == "__main__":
    main()
