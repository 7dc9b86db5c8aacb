"""The output of a batch of OpenAI's API, which vLLM's run-batch writes too: a row a request, a choice a rollout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from operant.core.checks import DataError
from operant.hf.rollouts.formats.base import VERIFY, Format, Reading, picked
from operant.hf.rollouts.formats.settings import ReadConfig
from operant.hf.rollouts.rows import Row


def _read(rows: Sequence[Row], config: ReadConfig) -> Reading:
    """Requests that failed have no rollouts. They are counted, because they may be the hard ones."""
    picked("metric", config.metric, [VERIFY], VERIFY)
    failed, read = Counter[str](), list[Row]()
    for i, row in enumerate(rows, 1):
        if kind := _failure(row):
            failed[kind] += 1
            continue
        read += [{"prompt": row["custom_id"], **new} for new in _choices(row["response"].get("body"), f"row {i}")]
    if not read:
        raise DataError(f"expected responses, found {len(rows)} failed requests ({', '.join(failed)}).")
    texts = [f"failed requests, left out: {count} ({kind})" for kind, count in failed.items()]
    return Reading(read, ("no rewards", *texts))


def _failure(row: Row) -> str:
    """Why a request has no answer; "" if it has one."""
    error, response = row.get("error"), row["response"]
    if error or not isinstance(response, dict):
        return str(error.get("code") if isinstance(error, dict) else error or "no response")
    status = response.get("status_code", 200)
    return "" if status == 200 else f"status {status}"


def _choices(body: Any, where: str) -> list[dict[str, Any]]:
    """Of /v1/chat/completions and /v1/completions; /v1/responses gives one output."""
    if isinstance(body, dict) and isinstance(body.get("choices"), list):
        return [_choice(choice) for choice in body["choices"]]
    if isinstance(body, dict) and isinstance(body.get("output"), list):
        parts = [part for item in body["output"] if item.get("type") == "message" for part in item.get("content") or []]
        text = "".join(part.get("text") or "" for part in parts)
        return [{"completion": text, "finished": body.get("status") != "incomplete"}]
    raise DataError(f"{where}: expected choices or output in the body of the response, got {body!r:.80}.")


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    """One rollout; its log-probability is the sum over its tokens, where the server gave them."""
    message, said = choice.get("message") or {}, choice.get("logprobs") or {}
    new: dict[str, Any] = {"completion": message.get("content") or choice.get("text") or ""}
    if choice.get("finish_reason") is not None:
        new["finished"] = choice["finish_reason"] != "length"
    tokens = said.get("token_logprobs") or [token.get("logprob") for token in said.get("content") or []]
    if tokens and all(isinstance(x, (int, float)) for x in tokens):
        new |= {"tokens": len(tokens), "log_p": float(sum(tokens))}
    return new


OPENAI = Format("openai", "OpenAI batch", ("custom_id", "response"), _read)
