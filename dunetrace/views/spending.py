"""What a run's tokens were, for its cost. Fed by the fold of `runs.RunState`, as soon as tokens are known.

Prices depend on the model and on whether a prompt's tokens were cached, so they are kept apart by both; the sums of
prompt and completion are the run's `total_tokens`.
"""

from __future__ import annotations

MAX_MODELS = 16
OTHER = "other"  # the models after the first `MAX_MODELS`


class Spent:
    """Tokens of one model; `cached` are those of `prompt` that were read from the provider's cache."""

    __slots__ = ("cached", "completion", "prompt")

    def __init__(self) -> None:
        self.prompt = self.cached = self.completion = 0


class SpendingView:
    """Tokens by model."""

    __slots__ = ("by_model",)

    def __init__(self) -> None:
        self.by_model: dict[str, Spent] = {}

    def on(self, model: str) -> Spent:
        """The row to which this model's tokens are added."""
        spent = self.by_model.get(model)
        if spent is None:
            if len(self.by_model) >= MAX_MODELS:
                model = OTHER
            spent = self.by_model.setdefault(model, Spent())
        return spent

    @property
    def mix(self) -> dict[str, list[int]] | None:
        """{model: [prompt, cached, completion]} of models with tokens; None where no tokens are known."""
        mix = {
            model: [spent.prompt, spent.cached, spent.completion]
            for model, spent in self.by_model.items()
            if spent.prompt or spent.completion
        }
        return mix or None
