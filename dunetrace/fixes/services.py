"""Which services a fix may use, and what is said when one is not set up or does not do its part. Made from settings.

The messages of these errors are answers of the API: they name settings and services, never a secret or a content.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeVar

import msgspec

from dunetrace.errors import DunetraceError

if TYPE_CHECKING:
    from dunetrace.config import Settings
    from dunetrace.outgoing.client import Reply

Shape = TypeVar("Shape")
ANTHROPIC_URL: Final = "https://api.anthropic.com"
OPENAI_URL: Final = "https://api.openai.com/v1"
ANTHROPIC_MODEL: Final = "claude-sonnet-5-5"
OPENAI_MODEL: Final = "gpt-6.1-terra"


class NotSetUpError(DunetraceError):
    """A setting is missing; the message names it."""


class ServiceError(DunetraceError):
    """A service failed; the message says which and how."""


class PromptMissingError(DunetraceError):
    """Langfuse has no prompt of that name."""


@dataclass(frozen=True, slots=True)
class LangfuseAccess:
    """Where the user's Langfuse is, and the keys of one of its projects."""

    host: str
    public_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """Which model is asked, by which of the two protocols."""

    provider: Literal["Anthropic", "OpenAI"]
    url: str
    key: str = field(repr=False)
    model: str


@dataclass(frozen=True, slots=True)
class Services:
    """What is set up."""

    langfuse: LangfuseAccess | None = None
    model: ModelAccess | None = None
    missing_langfuse: tuple[str, ...] = ("LANGFUSE_HOST", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY")

    def needs_langfuse(self) -> LangfuseAccess:
        """Raises NotSetUpError."""
        if self.langfuse is None:
            _refuse([*self.missing_langfuse])
        return self.langfuse

    def needs_model(self) -> ModelAccess:
        """Raises NotSetUpError."""
        if self.model is None:
            _refuse(["ANTHROPIC_API_KEY or OPENAI_API_KEY"])
        return self.model

    def needs_both(self) -> tuple[LangfuseAccess, ModelAccess]:
        """Raises NotSetUpError naming all that is missing."""
        if self.langfuse is None and self.model is None:
            _refuse([*self.missing_langfuse, "ANTHROPIC_API_KEY or OPENAI_API_KEY"])
        return self.needs_langfuse(), self.needs_model()


def services(settings: Settings) -> Services:
    """What `settings` set up. Anthropic is asked where both models could be."""
    given = {
        "LANGFUSE_HOST": settings.langfuse_host,
        "LANGFUSE_PUBLIC_KEY": settings.langfuse_public_key,
        "LANGFUSE_SECRET_KEY": settings.langfuse_secret_key,
    }
    host, public_key, secret_key = given.values()
    langfuse = LangfuseAccess(host.rstrip("/"), public_key, secret_key) if host and public_key and secret_key else None
    missing = tuple(name for name, value in given.items() if not value)
    return Services(langfuse, _model(settings), missing)


def checked(service: str, reply: Reply, *settings: str) -> Reply:
    """The reply, if it is a 2xx. Raises ServiceError, which names the `settings` where a refusal may be their fault."""
    if 200 <= reply.status < 300:
        return reply
    hint = f"; check {' and '.join(settings)}" if settings and reply.status in (400, 401, 403, 404) else ""
    raise ServiceError(f"{service} answered {reply.status}{hint}")


def read(service: str, body: bytes, shape: type[Shape]) -> Shape:
    """The answer as `shape`. Raises ServiceError when it is not."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ServiceError(f"{service} sent an answer that is not what it should be") from None


def _model(settings: Settings) -> ModelAccess | None:
    if settings.anthropic_api_key:
        url = settings.anthropic_base_url or ANTHROPIC_URL
        model = settings.explain_model or ANTHROPIC_MODEL
        return ModelAccess("Anthropic", url.rstrip("/"), settings.anthropic_api_key, model)
    if settings.openai_api_key:
        url = settings.openai_base_url or OPENAI_URL
        return ModelAccess("OpenAI", url.rstrip("/"), settings.openai_api_key, settings.explain_model or OPENAI_MODEL)
    return None


def _refuse(missing: list[str]) -> NoReturn:
    raise NotSetUpError(f"Not set up on this server: {', '.join(missing)}")
