"""Arguments and environment: an argument that is given wins, None included, and nothing that is given raises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dunetrace.sdk import settings
from dunetrace.sdk.settings import UNSET, Settings


def read(environ: dict[str, str] | None = None, **given_arguments: object) -> Settings:
    arguments: dict[str, object] = dict.fromkeys(("endpoint", "api_key", "hash_key"), UNSET)
    arguments |= {"buffer_size": 10_000, "flush_interval_ms": 200, "emit_as_json": False, "debug": False}
    return settings.read(**(arguments | given_arguments), environ=environ or {})  # type: ignore[arg-type]


def test_defaults() -> None:
    assert read() == Settings("http://localhost:8001", None, "", None, False, 10_000, 0.2, False, False)


def test_the_environment_and_what_wins_over_it() -> None:
    environ = {
        "DUNETRACE_ENDPOINT": "http://e", "DUNETRACE_API_KEY": " k ", "DUNETRACE_HASH_KEY": "h",
        "DUNETRACE_AGENT_ID": "a", "DUNETRACE_DISABLED": "TRUE",
    }  # fmt: skip
    assert read(environ)[:5] == ("http://e", "k", "a", b"h", True)
    assert read(environ, endpoint=None, api_key=None, hash_key=None)[:4] == (None, None, "a", None)
    assert read(environ, endpoint="http://x", api_key="y", hash_key=b"z")[:4] == ("http://x", "y", "a", b"z")


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.integers()),
    st.just(object()),
)


@given(
    st.fixed_dictionaries(
        dict.fromkeys(
            ("endpoint", "api_key", "hash_key", "buffer_size", "flush_interval_ms", "emit_as_json", "debug"), anything
        )
    )
)
def test_anything_gives_usable_settings(arguments: dict[str, object]) -> None:
    given_settings = read(**arguments)
    assert 1 <= given_settings.buffer_size <= 1_000_000
    assert 0 < given_settings.flush_interval_s <= 60
