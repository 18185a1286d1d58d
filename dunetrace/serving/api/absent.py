"""Lists of what published clients ask for and this server does not have: there are none, so the list is empty.

A client that asks for them goes on quietly; making one is not offered. Used by the table in routes.py.
"""

from __future__ import annotations

from typing import Annotated, Any

import trio
from msgspec import Meta, Struct

from dunetrace.serving.api.parameters import Text
from dunetrace.serving.api.route import Call, Route
from dunetrace.store.gateway import Gateway

_None = Annotated[list[dict[str, Any]], Meta(max_length=0)]
_AGENT = (Text("agent_id", "whose; makes no difference"),)


class Policies(Struct):
    policies: _None


class VoiceCalls(Struct):
    calls: _None


class CustomDetectors(Struct):
    detectors: _None


async def list_policies(_reads: Gateway, _call: Call) -> Policies:
    await trio.lowlevel.checkpoint()
    return Policies([])


async def list_voice_calls(_reads: Gateway, _call: Call) -> VoiceCalls:
    await trio.lowlevel.checkpoint()
    return VoiceCalls([])


async def list_custom_detectors(_reads: Gateway, _call: Call) -> CustomDetectors:
    await trio.lowlevel.checkpoint()
    return CustomDetectors([])


ABSENT = (
    Route("/v1/policies", list_policies, Policies, "Runtime policies: this server has none", _AGENT),
    Route("/v1/calls", list_voice_calls, VoiceCalls, "Voice calls: this server has none", _AGENT),
    Route(
        "/v1/custom-detectors",
        list_custom_detectors,
        CustomDetectors,
        "Detectors defined by text: this server has none",
        _AGENT,
    ),
)
