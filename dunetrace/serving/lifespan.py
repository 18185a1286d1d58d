"""ASGI's life span, for apps that are whole once constructed: both of its messages are answered, nothing is done."""

from __future__ import annotations

from dunetrace.serving.requests import Receive, Send


async def lifespan(receive: Receive, send: Send) -> None:
    """Serve one `lifespan` scope."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
