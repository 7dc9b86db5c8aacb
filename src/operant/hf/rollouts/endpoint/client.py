"""A model behind an OpenAI-compatible server: the optional fields it takes, completions with retries, plain errors."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operant.core.checks import ConfigError, OperantError, check_int
from operant.hf.rollouts.sampling import RolloutSettings

try:
    import openai
except ImportError as error:
    raise ImportError(
        f"sampling from a server needs the client of its protocol: pip install 'operant[endpoint]' ({error})"
    ) from error

Question = str | list[dict[str, str]]
"""A text to continue, or a conversation to answer."""
_REFUSALS = (400, 422, 501)
# Seconds before a broken answer is asked for again, doubled each time; openai's own first delay after a failure.
_PAUSE = 0.5


class EndpointError(OperantError):
    """A server that is not there, refuses a request, or answers in another form than OpenAI's."""


class _BrokenAnswerError(EndpointError):
    """An answer that is no completion: cut JSON, or no choices."""


@dataclass(frozen=True)
class Served:
    """One completion.

    Args:
        text: the completion.
        stop: why it ended, in the server's words: "stop" at an end token, "length" at the limit.
        tokens: how many tokens it has; None if the server counts only those of all completions of a request together.
        log_p: its log-probability, the sum over its tokens as the server gives them; None if it gives none.
    """

    text: str
    stop: str | None
    tokens: int | None
    log_p: float | None

    @property
    def finished(self) -> bool | None:
        """Whether it ended by itself; None if the server does not say."""
        return {"stop": True, "length": False}.get(self.stop or "")


@dataclass
class Server:
    """One model of a server.

    Args:
        url: the address of the API, which usually ends in /v1.
        model: the name by which the server knows the model.
        settings: length and sampler of the completions.
        chat: whether the model is asked in conversations, or continues texts.
        timeout: seconds after which a request is given up and sent again.
        retries: how often a request is sent again after a failure.

    The key is read from the environment variable OPENAI_API_KEY; servers of one's own need none.
    """

    url: str
    model: str
    settings: RolloutSettings
    chat: bool = True
    timeout: float = 600.0
    retries: int = 6
    most: int = field(default=1, init=False)
    """Completions that one request may ask for."""
    notes: list[str] = field(default_factory=list[str], init=False)
    """What the reader is told about the server and changes no number."""
    _optional: dict[str, Any] = field(default_factory=dict[str, Any], init=False)
    _limit: str = field(default="max_tokens", init=False)

    def __post_init__(self) -> None:
        """Check the settings and make the client."""
        check_int("retries", self.retries, least=0)
        if not self.timeout > 0:
            raise ConfigError(f"timeout must be above 0 seconds, got {self.timeout}.")
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint must be an address such as http://localhost:8000/v1, got {self.url!r}.")
        self._client = openai.AsyncOpenAI(
            base_url=self.url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=self.timeout,
            max_retries=self.retries,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def probe(self, question: Question) -> list[str]:
        """Find out which optional fields the server takes, by requests for one token; returns warnings.

        Raises:
            EndpointError: if it is not there or refuses even the plainest request.
        """
        await self._plain(question)
        warnings: list[str] = []
        for fields in _neutral(self.settings):
            if await self._takes(question, fields) is not None:
                self._optional |= fields
                break
        else:
            warnings.append(
                "the server takes no top_k, min_p or repetition_penalty: what it sets them to is part of the sampler."
            )
        found = await self._takes(question, {"n": 2}) if self.settings.rollouts > 1 else None
        if found is not None and len(found) == 2:
            self.most = self.settings.rollouts
        elif self.settings.rollouts > 1:
            what = "refuses n" if found is None else "ignores n"
            self.notes.append(f"the server {what}: each completion is a request of its own.")
        fields = {"logprobs": True if self.chat else 1}
        found = await self._takes(question, fields)
        if found is not None and found[0].log_p is not None:
            self._optional |= fields
        return warnings

    async def ask(self, question: Question, count: int) -> list[Served]:
        """At least one and at most ``count`` completions of one question.

        Raises:
            EndpointError: after the last retry, or if the server refuses the request.
        """
        while True:
            asked = min(count, self.most)
            try:
                return (await self._sent(question, {"n": asked} if asked > 1 else {}))[:asked]
            except openai.APIStatusError as error:
                if error.status_code not in _REFUSALS or asked == 1:
                    raise self._explained(error) from error
                self.most = min(self.most, asked // 2)  # many servers have a largest n
            except openai.APIConnectionError as error:
                raise self._explained(error) from error

    async def _plain(self, question: Question) -> None:
        """The plainest request, for one token, to tell a wrong address, key or model from a field that is not known."""
        try:
            await self._sent(question, {}, tokens=1, retries=1)
        except (openai.APIStatusError, openai.APIConnectionError) as error:
            if self.chat and isinstance(error, openai.BadRequestError):  # newer models of OpenAI's own
                self._limit = "max_completion_tokens"
                if await self._takes(question, {}) is not None:
                    return
            raise self._explained(error, await self._offers()) from error

    async def _takes(self, question: Question, fields: Mapping[str, Any]) -> list[Served] | None:
        """What the server answers to a request for one token with these further fields; None if it refuses them."""
        try:
            return await self._sent(question, fields, tokens=1)
        except openai.APIStatusError as error:
            if error.status_code in _REFUSALS:
                return None
            raise self._explained(error) from error
        except openai.APIConnectionError as error:
            raise self._explained(error) from error

    async def _sent(
        self, question: Question, fields: Mapping[str, Any], *, tokens: int | None = None, retries: int | None = None
    ) -> list[Served]:
        """The completions of one request. The client repeats what failed; a broken answer is repeated here."""
        sampler = self.settings.sampler
        body: dict[str, Any] = {
            self._limit: tokens or self.settings.max_new_tokens,
            "temperature": sampler.temperature,
            "top_p": sampler.top_p,
            **self._optional,
            **fields,
        }
        client = self._client if retries is None else self._client.with_options(max_retries=retries)
        for attempt in range(self.retries + 1):
            try:
                if isinstance(question, str):
                    raw = await client.completions.with_raw_response.create(
                        model=self.model, prompt=question, extra_body=body
                    )
                else:
                    raw = await client.chat.completions.with_raw_response.create(
                        model=self.model,
                        messages=question,  # pyright: ignore[reportArgumentType]
                        extra_body=body,
                    )
                return _completions(raw.text, self.url)
            except _BrokenAnswerError:
                if attempt == self.retries:
                    raise
                await asyncio.sleep(_PAUSE * 2**attempt)
        raise AssertionError("unreachable")

    async def _offers(self) -> list[str]:
        """The models that the server lists; none if it lists none."""
        try:
            return [model.id async for model in self._client.with_options(max_retries=0).models.list()]
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            return []

    def _explained(self, error: openai.APIError, offers: Sequence[str] = ()) -> EndpointError:
        """The error in one line, with what to do."""
        if isinstance(error, openai.APITimeoutError):
            return EndpointError(
                f"{self.url} did not answer within {self.timeout:g} s, {self.retries + 1} times. Raise timeout, or "
                "lower concurrency or max_new_tokens."
            )
        if isinstance(error, openai.APIConnectionError):
            return EndpointError(
                f"no server answers at {self.url} ({error.__cause__ or error}). Start it, or check the address in "
                "endpoint."
            )
        said = " ".join(str(getattr(error, "message", error)).split())[:300]
        status = getattr(error, "status_code", None)
        if status in (401, 403):
            return EndpointError(f"{self.url} refuses the key ({said}). Set the environment variable OPENAI_API_KEY.")
        if offers and self.model not in offers:
            named = ", ".join(sorted(offers)[:20])
            return EndpointError(
                f"{self.url} does not serve the model {self.model!r}; it offers {named}. Set model to one of them."
            )
        if status == 404:
            return EndpointError(
                f"expected an OpenAI-compatible API at {self.url}, which answered {said}. Check the address, which "
                "ends in /v1 for most servers, and the model's name."
            )
        if status in _REFUSALS:
            advice = " A model without a chat template needs data.chat false." if self.chat else ""
            return EndpointError(f"{self.url} refuses the request: {said}.{advice}")
        if status is not None and (status == 429 or status >= 500):
            return EndpointError(
                f"{self.url} failed {self.retries + 1} times: {said}. Lower concurrency, or see its log."
            )
        return EndpointError(f"{self.url} answered {said}.")


def _neutral(settings: RolloutSettings) -> list[dict[str, Any]]:
    """Fields that set everything aside but temperature and nucleus, as the servers know them.

    A server starts from the model's own generation settings (vLLM, SGLang) or from its own (llama.cpp: min_p 0.05).
    ``transformers serve`` takes them as one text, and is greedy without it whatever the temperature is.
    """
    whole = {
        "do_sample": True,
        "temperature": settings.sampler.temperature,
        "top_p": settings.sampler.top_p,
        "top_k": 0,
        "max_new_tokens": settings.max_new_tokens,
    }
    return [{"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}, {"generation_config": json.dumps(whole)}]


def _completions(text: str, url: str) -> list[Served]:
    """The completions in the text of an answer.

    Raises:
        _BrokenAnswerError: if it has none.
    """
    try:
        answer = json.loads(text)
        choices = [_choice(choice) for choice in answer["choices"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _BrokenAnswerError(f"{url} answered with something else than completions: {text[:200]!r}.") from error
    if not choices:
        raise _BrokenAnswerError(f"{url} answered without a completion: {text[:200]!r}.")
    used = (answer.get("usage") or {}).get("completion_tokens")
    if len(choices) == 1 and isinstance(used, int):
        return [Served(choices[0].text, choices[0].stop, used, choices[0].log_p)]
    return choices


def _choice(choice: Mapping[str, Any]) -> Served:
    """One completion, of either form: a message with a list of tokens, or a text with parallel lists."""
    chat = "message" in choice
    text = (choice["message"]["content"] or "") if chat else choice["text"]
    if not isinstance(text, str):
        raise TypeError(f"expected a text, got {type(text).__name__}")
    given = choice.get("logprobs") or {}
    values = [t["logprob"] for t in given.get("content") or []] if chat else (given.get("token_logprobs") or [])
    known = bool(values) and all(isinstance(v, (int, float)) for v in values)
    return Served(text, choice.get("finish_reason"), len(values) or None, float(sum(values)) if known else None)
