"""Libraries are instrumented when they are imported, whenever that is, and left as they were found."""

from __future__ import annotations

import functools
import inspect
import logging
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import requests

from dunetrace import Dunetrace, DunetraceSignal
from dunetrace.sdk import instrument
from dunetrace.sdk.instrument.patching import Library, Target, defining
from tests.sdk.instrument.conftest import Recording
from tests.sdk.instrument.provider import Provider
from tests.shared import CHECKOUT

NAMES = ["httpx", "httpx2", "requests", "openai", "anthropic"]
METHODS = [
    (httpx.Client, "send"), (httpx.AsyncClient, "send"), (httpx2.Client, "send"), (httpx2.AsyncClient, "send"),
    (requests.Session, "send"), (openai.OpenAI, "request"), (openai.AsyncOpenAI, "request"),
    (anthropic.Anthropic, "request"), (anthropic.AsyncAnthropic, "request"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    """Here each test says so itself."""
    instrument.remove()
    yield
    instrument.remove()


def methods() -> list[Any]:
    return [inspect.getattr_static(kind, name) for kind, name in METHODS]


def test_remove_puts_the_very_same_methods_back() -> None:
    before = methods()
    assert instrument.install(None) == NAMES
    during = methods()
    assert all(now is not then for now, then in zip(during, before, strict=True))
    assert instrument.install(None) == NAMES
    assert all(now is then for now, then in zip(methods(), during, strict=True))
    instrument.remove()
    assert all(now is then for now, then in zip(methods(), before, strict=True))
    assert instrument.install([]) == []


def test_some_libraries_only() -> None:
    before = methods()
    assert instrument.install(["httpx", "requests"]) == ["httpx", "requests"]
    assert instrument.install(iter(["openai"])) == ["httpx", "requests", "openai"]
    instrument.remove(["httpx", "openai"])
    assert instrument.install([]) == ["requests"]
    instrument.remove("requests")
    assert all(now is then for now, then in zip(methods(), before, strict=True))


def test_a_method_looks_like_the_one_it_stands_for() -> None:
    before = methods()
    instrument.install(None)
    for watched, original in zip(methods(), before, strict=True):
        assert inspect.signature(watched) == inspect.signature(original)
        assert inspect.iscoroutinefunction(watched) == inspect.iscoroutinefunction(original)
        assert (watched.__name__, watched.__qualname__, watched.__doc__) == (
            original.__name__, original.__qualname__, original.__doc__,
        )  # fmt: skip
        assert pickle.loads(pickle.dumps(watched)) is watched


@pytest.mark.parametrize(
    "names",
    [["nonsense"], "nonsense", [None], [[]], 7, object(), ["x" * 10_000]],
    ids=lambda names: repr(names)[:20] if type(names) is not object else "object",
)
def test_what_is_unknown_is_one_debug_line(names: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dunetrace")
    assert instrument.install(names) == []
    assert len(caplog.records) == 1
    instrument.remove(names)


def test_the_rest_is_instrumented_beside_what_is_unknown() -> None:
    assert instrument.install(["nonsense", [], "httpx"]) == ["httpx"]


def test_a_library_of_another_shape_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dunetrace")
    module = ModuleType("library")
    module.Client = type("Client", (), {"send": lambda self, letter: letter})  # type: ignore[attr-defined]
    module.AsyncClient = type("AsyncClient", (), {})  # type: ignore[attr-defined]
    for name, parameter in (("send", "request"), ("receive", "letter")):
        library = Library("library", lambda m, n=name, p=parameter: [Target(defining(m.Client, n, p), n, _no)])
        library.instrument(module)
        assert not library.on
    assert len(caplog.records) == 2
    assert module.Client().send("x") == "x"  # type: ignore[attr-defined]


def _no(*_: object) -> None:
    return None


def test_beside_somebody_elses_wrapper(provider: Provider, recording: Recording) -> None:
    """One that was there before, and one that came after and cannot be taken out."""

    def wrap() -> tuple[Any, Any]:
        inner = httpx.Client.send

        @functools.wraps(inner)
        def theirs(*args: Any, **kwargs: Any) -> Any:
            return inner(*args, **kwargs)

        httpx.Client.send = theirs  # type: ignore[method-assign]
        return inner, theirs

    original, before = wrap()
    try:
        instrument.install(["httpx"])
        ours, after = wrap()
        with recording.run():
            httpx.get(provider.url)
        assert len(recording.calls("tool")) == 1
        instrument.remove()
        assert httpx.Client.send is after
        with recording.run():
            httpx.get(provider.url)
        assert len(recording.calls("tool")) == 1
        instrument.install(["httpx"])
        assert httpx.Client.send is after
        with recording.run():
            httpx.get(provider.url)
        assert len(recording.calls("tool")) == 2
        httpx.Client.send = ours  # type: ignore[method-assign]
        instrument.remove()
        assert httpx.Client.send is before
    finally:
        httpx.Client.send = original  # type: ignore[method-assign]


def test_another_wrapper_that_threw_ours_out(provider: Provider, recording: Recording) -> None:
    original = httpx.Client.send
    try:
        instrument.install(["httpx"])
        httpx.Client.send = original  # type: ignore[method-assign]
        instrument.install(["httpx"])
        with recording.run():
            httpx.get(provider.url)
        assert len(recording.calls("tool")) == 1
        instrument.remove()
        assert httpx.Client.send is original
    finally:
        httpx.Client.send = original  # type: ignore[method-assign]


def test_clients_made_before_are_instrumented_too(provider: Provider, recording: Recording) -> None:
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k") as client:
        create = client.chat.completions.create
        instrument.install(None)
        with recording.run():
            create(model="m", messages=[])
    assert recording.types() == ["llm.called", "llm.responded"]


def test_the_guard_stops_the_agent_before_the_call_is_made(
    client: Callable[..., Dunetrace], provider: Provider
) -> None:
    instrument.install(["httpx"])
    dt = client(on_signal="raise")
    with pytest.raises(DunetraceSignal) as raised, dt.run("agent"):
        for _ in range(50):
            httpx.post(f"{provider.url}/search", json={"q": "the same"})
    assert raised.value.failure_type == "TOOL_LOOP"
    assert len(provider.asked) < 50


def test_what_the_guards_callback_requests_is_no_tool(client: Callable[..., Dunetrace], provider: Provider) -> None:
    """As where it tells a chat; else it would be judged again, and call back again."""
    instrument.install(["httpx"])
    told: list[str] = []

    def tell(signal: DunetraceSignal) -> None:
        told.append(httpx.post(f"{provider.url}/chat", json={"text": signal.title}).text)

    with client(on_signal=tell).run("agent") as run:
        for _ in range(6):
            httpx.post(f"{provider.url}/search", json={"q": "the same"})
        assert run.step == 6
    assert told


def test_installed_from_many_threads_at_once(provider: Provider, recording: Recording) -> None:
    """Watched once, and put back whole."""
    before = methods()
    barrier = threading.Barrier(8)

    def toggle() -> None:
        barrier.wait()
        instrument.install(None)

    threads = [threading.Thread(target=toggle) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with recording.run():
        httpx.get(provider.url)
    assert len(recording.calls("tool")) == 1
    instrument.remove()
    assert all(now is then for now, then in zip(methods(), before, strict=True))


# ---- in a process of its own, where nothing is imported yet


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={"PYTHONPATH": str(CHECKOUT), "DUNETRACE_DISABLED": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_nothing_is_imported_for_it() -> None:
    """A library is instrumented right after its own import, and then nobody watches imports any more."""
    assert (
        python(
            f"""
        import importlib.util, sys
        before = list(sys.meta_path)
        from dunetrace.sdk.instrument import install, remove
        names = {NAMES}
        assert install(None) == names
        assert not set(names) & set(sys.modules), set(names) & set(sys.modules)
        assert importlib.util.find_spec("openai").name == "openai"
        import httpx, httpx2, requests
        from openai import OpenAI
        import anthropic
        for module, method in (
            (httpx, httpx.Client.send), (httpx2, httpx2.Client.send), (requests, requests.Session.send),
            (sys.modules["openai"], OpenAI.request), (anthropic, anthropic.AsyncAnthropic.request),
        ):
            assert "watching" in method.__code__.co_filename, method
            assert type(module.__loader__).__name__ == "SourceFileLoader", module.__loader__
            assert module.__spec__.loader is module.__loader__
        assert sys.meta_path == before
        remove()
        assert "watching" not in OpenAI.request.__code__.co_filename
        print("done")
        """
        )
        == "done"
    )


def test_removed_before_it_was_imported() -> None:
    assert (
        python(
            """
        import sys
        before = list(sys.meta_path)
        from dunetrace.sdk.instrument import install, remove
        install(["httpx", "requests"])
        remove(["httpx"])
        import httpx
        assert "watching" not in httpx.Client.send.__code__.co_filename
        remove()
        assert sys.meta_path == before
        print(install([]))
        """
        )
        == "[]"
    )


def test_an_import_that_fails_fails_as_before(tmp_path: Any) -> None:
    broken = tmp_path / "requests.py"
    broken.write_text("raise ImportError('broken for good')\n")
    assert (
        python(
            f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from dunetrace.sdk.instrument import install
        assert install(["requests"]) == ["requests"]
        for _ in range(2):
            try:
                import requests
            except ImportError as error:
                print(error)
        """
        )
        == "broken for good\nbroken for good"
    )


def test_a_module_of_the_users_own_with_such_a_name(tmp_path: Any) -> None:
    (tmp_path / "requests.py").write_text("def get(url):\n    return url\n")
    assert (
        python(
            f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from dunetrace.sdk.instrument import install
        install(None)
        import requests
        print(requests.get("x"), "requests" in install(None))
        """
        )
        == "x False"
    )


def test_importing_dunetrace_loads_none_of_it() -> None:
    assert (
        python(
            """
        import sys
        from dunetrace import Dunetrace
        Dunetrace()
        print([name for name in sys.modules if "instrument" in name or name in ("httpx", "openai", "requests")])
        """
        )
        == "[]"
    )
