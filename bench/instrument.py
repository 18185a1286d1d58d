"""``python -m bench.instrument``: what auto-instrumentation costs the agent's thread, a call.

The same requests with the library as it is and instrumented, outside of a run and inside one, in turn. They are
answered within the process, so that nothing but the library's own work is compared with.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import httpx
import httpx2
import openai

from dunetrace import Dunetrace
from dunetrace.sdk.instrument import install, remove

_PIECES = 50
_BODY = {"items": ["TP 1351 London Lisbon 09:40 EUR 120"] * 20}
_ANSWER = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Good day. " * 40}}],
    "usage": {"prompt_tokens": 900, "completion_tokens": 60, "total_tokens": 960},
}  # fmt: skip
_PIECE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"content":"Good day. "},"finish_reason":null}]}\n\n'
)


def _answer(request: httpx2.Request) -> httpx2.Response:
    if b'"stream":true' in request.content.replace(b" ", b""):
        return httpx2.Response(200, content=_PIECE * _PIECES + b"data: [DONE]\n\n")
    return httpx2.Response(200, json=_ANSWER)


def _calls() -> dict[str, Callable[[], object]]:
    http = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=_BODY)))
    model = openai.OpenAI(
        api_key="k", base_url="http://model/v1", http_client=httpx2.Client(transport=httpx2.MockTransport(_answer))
    )
    chat = model.chat.completions
    return {
        "an httpx request": lambda: http.get("http://shop/flights?to=Lisbon"),
        "an openai answer": lambda: chat.create(model="gpt-4o", messages=[]),
        f"an openai stream of {_PIECES}": lambda: list(chat.create(model="gpt-4o", messages=[], stream=True)),
    }


def compare(name: str, call: Callable[[], object], calls: int, blocks: int) -> None:
    """Blocks of calls as they are, instrumented outside of a run, and inside one, in turn; the line."""
    dt = Dunetrace(None)
    took: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(blocks):
        for kind, spent in enumerate(took):
            (install if kind else remove)(None)
            with dt.run("bench") if kind == 2 else nullcontext():
                began = time.perf_counter()
                for _ in range(calls):
                    call()
                spent.append((time.perf_counter() - began) / calls * 1e6)
    remove()
    plain, outside, inside = map(statistics.median, took)
    print(
        f"{name:<24}as it is {plain:8.1f} µs   outside of a run {outside - plain:+6.1f}   inside {inside - plain:+6.1f}"
        f"   ratio {inside / plain:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What auto-instrumentation costs the agent's thread.")
    parser.add_argument("--calls", type=int, default=20, help="a block (%(default)s)")
    parser.add_argument("--blocks", type=int, default=101, help="of each kind (%(default)s)")
    asked = parser.parse_args()
    for name, call in _calls().items():
        compare(name, call, asked.calls, asked.blocks)


if __name__ == "__main__":
    main()
