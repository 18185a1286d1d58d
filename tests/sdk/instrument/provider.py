"""A provider of models as a real HTTP server: it speaks the protocols of OpenAI and Anthropic, whole and streamed, also
badly, and answers plain requests beside them.

    with running_provider() as provider:
        provider.script(Reply(text="Good day."), Reply(status=429), Reply(tool="search"))  # then a plain Reply() again
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Document = dict[str, Any]
PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS = 120, 40, 7


class Reply(NamedTuple):
    """How the next model's answer goes. `finish` is in the words of the API it is asked by."""

    text: str = "Good day to you."
    tool: str = ""
    finish: str = ""
    status: int = 200
    error: str = "Something went wrong."
    usage: bool = True
    cut_after: int | None = None  # pieces of a stream after which the connection is reset
    error_after: int | None = None  # pieces of a stream after which it says that it failed
    held_after: int | None = None  # pieces of a stream after which nothing comes until the provider stops
    document: Document | None = None  # the whole answer as it is


class Asked(NamedTuple):
    method: str
    path: str
    body: bytes


class Provider(ThreadingHTTPServer):
    """`asked` is what arrived."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []
        self.stopping = threading.Event()
        self._replies: deque[Reply] = deque()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes the libraries' own clients ask here."""
        return {
            "OPENAI_BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": "k",
            "ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": "k",
        }  # fmt: skip

    def script(self, *replies: Reply) -> None:
        self._replies.extend(replies)

    def next_reply(self) -> Reply:
        try:
            return self._replies.popleft()
        except IndexError:
            return Reply()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


@contextmanager
def running_provider() -> Iterator[Provider]:
    provider = Provider()
    thread = threading.Thread(target=provider.serve_forever, kwargs={"poll_interval": 0.005})
    thread.start()
    try:
        yield provider
    finally:
        provider.stopping.set()
        provider.shutdown()
        provider.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self._body()
        self.server.asked.append(Asked(self.command, self.path, body))
        speak = _MODELS.get(self.path.partition("?")[0])
        if speak is None:
            self._plain(body)
            return
        reply, asked = self.server.next_reply(), json.loads(body)
        if reply.status >= 400:
            self._send(reply.status, _json(_failure(reply)), {"retry-after-ms": "1", "x-should-retry": _retry(reply)})
        elif asked.get("stream"):
            self._stream(reply, list(speak.pieces(reply, asked)), speak.closing)
        else:
            self._send(200, _json(reply.document or speak.whole(reply, asked)))

    do_GET = do_PUT = do_HEAD = do_POST

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or "0"))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # ---- models

    def _stream(self, reply: Reply, pieces: list[bytes], closing: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(pieces):
            if number == reply.cut_after:
                self._reset()
                return
            if number == reply.held_after:
                self.server.stopping.wait(30)
            if number == reply.error_after:
                self._chunk(_event("error", _failure(reply)))
                break
            self._chunk(piece)
        self._chunk(closing)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    # ---- plain requests

    def _plain(self, body: bytes) -> None:
        """`/status/404/...`, `/redirect/...`, `/reset`, `/gzip`, `/held`; anything else is echoed."""
        what, _, rest = self.path.partition("?")[0].strip("/").partition("/")
        match what:
            case "status":
                self._send(int(rest.partition("/")[0]), b"as you wish")
            case "redirect":
                self._send(302, b"", {"Location": f"/{rest}"})
            case "reset":
                self._reset()
            case "gzip":
                self._send(200, gzip.compress(b"small " * 100), {"Content-Encoding": "gzip"})
            case "held":
                self.server.stopping.wait(30)
            case _:
                self._send(200, body or self.path.encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        usual = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for name, value in (usual | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _json(document: Document) -> bytes:
    return json.dumps(document).encode()


def _event(name: str, document: Document) -> bytes:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()


def _data(document: Document) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def _failure(reply: Reply) -> Document:
    return {"type": "error", "error": {"type": "some_error", "message": reply.error}}


def _retry(reply: Reply) -> str:
    return "true" if reply.status in (429, 500, 503) else "false"


def _words(reply: Reply) -> list[str]:
    """The text in three pieces."""
    third = -(-len(reply.text) // 3) or 1
    return [reply.text[at : at + third] for at in range(0, len(reply.text), third)]


# ---- the protocols, each: path, a whole answer, a stream's pieces, what closes a stream


class _Chat:
    closing = b"data: [DONE]\n\n"

    @staticmethod
    def usage() -> Document:
        return {
            "prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        }  # fmt: skip

    @staticmethod
    def calls(reply: Reply) -> list[Document]:
        function = {"name": reply.tool, "arguments": "{}"}
        return [{"index": 0, "id": "call_1", "type": "function", "function": function}] if reply.tool else []

    @classmethod
    def finish(cls, reply: Reply) -> str:
        return reply.finish or ("tool_calls" if reply.tool else "stop")

    @classmethod
    def whole(cls, reply: Reply, asked: Document) -> Document:
        message = {"role": "assistant", "content": reply.text or None, "refusal": None}
        if reply.tool:
            message["tool_calls"] = cls.calls(reply)
        choice = {"index": 0, "finish_reason": cls.finish(reply), "logprobs": None, "message": message}
        document = {"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice]}
        return document | ({"usage": cls.usage()} if reply.usage else {})

    @classmethod
    def pieces(cls, reply: Reply, asked: Document) -> Iterator[bytes]:
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}

        def piece(delta: Document, finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
            return _data(head | {"choices": [choice]})

        yield piece({"role": "assistant", "content": ""})
        for word in _words(reply):
            yield piece({"content": word})
        for call in cls.calls(reply):
            yield piece({"tool_calls": [call]})
        yield piece({}, cls.finish(reply))
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield _data(head | {"choices": [], "usage": cls.usage()})


class _Completions(_Chat):
    @classmethod
    def whole(cls, reply: Reply, asked: Document) -> Document:
        choice = {"index": 0, "finish_reason": cls.finish(reply), "logprobs": None, "text": reply.text}
        head = {"id": "c", "object": "text_completion", "created": 1, "model": asked["model"]}
        return head | {"choices": [choice], "usage": cls.usage()}

    @classmethod
    def pieces(cls, reply: Reply, asked: Document) -> Iterator[bytes]:
        head = {"id": "c", "object": "text_completion", "created": 1, "model": asked["model"]}
        words = _words(reply)
        for word in words:
            finish = cls.finish(reply) if word is words[-1] else None
            yield _data(head | {"choices": [{"index": 0, "text": word, "finish_reason": finish, "logprobs": None}]})


class _Responses:
    closing = b""

    @classmethod
    def whole(cls, reply: Reply, asked: Document) -> Document:
        output: list[Document] = []
        if reply.text:
            part = {"type": "output_text", "text": reply.text, "annotations": []}
            output.append({"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]})
        if reply.tool:
            output.append({"type": "function_call", "id": "f", "call_id": "c", "name": reply.tool, "arguments": "{}"})
        status = "incomplete" if reply.finish else "completed"
        return {
            "id": "r", "object": "response", "created_at": 1, "model": asked["model"], "status": status, "error": None,
            "incomplete_details": {"reason": reply.finish} if reply.finish else None, "output": output, "tools": [],
            "instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0,
            "tool_choice": "auto",
            "usage": {
                "input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS,
                "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
                "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            },
        }  # fmt: skip

    @classmethod
    def pieces(cls, reply: Reply, asked: Document) -> Iterator[bytes]:
        whole = cls.whole(reply, asked)
        numbers = iter(range(1000))

        def event(kind: str, **more: Any) -> bytes:
            return _event(kind, {"type": kind, "sequence_number": next(numbers), **more})

        yield event("response.created", response=whole | {"status": "in_progress", "output": [], "usage": None})
        for index, item in enumerate(whole["output"]):
            started = item | ({"content": []} if item["type"] == "message" else {})
            yield event("response.output_item.added", output_index=index, item=started)
            if item["type"] == "message":
                where = {"item_id": item["id"], "output_index": index, "content_index": 0}
                part = item["content"][0]
                yield event("response.content_part.added", **where, part=part | {"text": ""})
                for word in _words(reply):
                    yield event("response.output_text.delta", **where, delta=word, logprobs=[])
                yield event("response.output_text.done", **where, text=reply.text, logprobs=[])
            yield event("response.output_item.done", output_index=index, item=item)
        yield event(f"response.{whole['status']}", response=whole)


class _Messages:
    closing = b""

    @staticmethod
    def finish(reply: Reply) -> str:
        return reply.finish or ("tool_use" if reply.tool else "end_turn")

    @classmethod
    def whole(cls, reply: Reply, asked: Document) -> Document:
        content: list[Document] = [{"type": "text", "text": reply.text}] if reply.text else []
        if reply.tool:
            content.append({"type": "tool_use", "id": "t", "name": reply.tool, "input": {}})
        usage = {
            "input_tokens": PROMPT_TOKENS - CACHED_TOKENS, "cache_read_input_tokens": CACHED_TOKENS,
            "cache_creation_input_tokens": 0, "output_tokens": COMPLETION_TOKENS,
        }  # fmt: skip
        return {
            "id": "m", "type": "message", "role": "assistant", "model": asked["model"], "content": content,
            "stop_reason": cls.finish(reply), "stop_sequence": None, "usage": usage,
        }  # fmt: skip

    @classmethod
    def pieces(cls, reply: Reply, asked: Document) -> Iterator[bytes]:
        whole = cls.whole(reply, asked)

        def event(kind: str, **more: Any) -> bytes:
            return _event(kind, {"type": kind, **more})

        begun = {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
        yield event("message_start", message=whole | begun)
        yield event("ping")
        for index, block in enumerate(whole["content"]):
            text = block["type"] == "text"
            yield event("content_block_start", index=index, content_block=block | ({"text": ""} if text else {}))
            for word in _words(reply) if text else ():
                yield event("content_block_delta", index=index, delta={"type": "text_delta", "text": word})
            if not text:
                yield event(
                    "content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": "{}"}
                )
            yield event("content_block_stop", index=index)
        ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield event("message_delta", delta=ended, usage={"output_tokens": COMPLETION_TOKENS})
        yield event("message_stop")


_MODELS: dict[str, Any] = {
    "/v1/chat/completions": _Chat,
    "/v1/completions": _Completions,
    "/v1/responses": _Responses,
    "/v1/messages": _Messages,
}
