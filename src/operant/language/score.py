"""Log-probability of many texts under a language model, with shared work done once; and greedy generation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from operant.core.checks import DataError
from operant.hf.rollouts.policy import Encoded, Policy

Padding = Literal["left", "right"]
BATCH = 256
"""Rows a forward pass. On one core 32 to 256 rows take the same time within 20 %, for the embedded model."""
POSITIONS = 2**14
"""Keys and values of so many tokens are held at once, in prefixes and again in rows: 0.75 GB each for a model of 135M
parameters in float32, 2 GB for one of 8B in bfloat16."""
LOGITS = 2**27
"""Logits of a forward pass at most: 0.5 GB in float32. 2^14 tokens of a vocabulary of 49,000 would take 3 GB."""
LARGEST = 256
"""Rows a group: it bounds the time to find the groups, which grows with rows times this."""


class _Group(NamedTuple):
    """Rows whose first ``length`` tokens are the same, all of them before the last token of the prompt."""

    rows: list[int]
    length: int


def encode_texts(policy: Policy, pairs: Sequence[tuple[str, str]], *, max_tokens: int) -> list[Encoded]:
    """Prompts and targets as tokens, alike for training and scoring.

    The prompt has the tokenizer's special tokens. The target has none but the end-of-sequence token after it, so that
    an empty target is a target too.

    Raises:
        DataError: for a pair of more than ``max_tokens`` tokens. It is never cut: the probability of a cut target is
            another one.
    """
    found = list[Encoded]()
    prompts = tokens_of(policy, [prompt for prompt, _ in pairs])
    targets = tokens_of(policy, [target for _, target in pairs], special=False)
    for (prompt, _), before, end in zip(pairs, prompts, targets, strict=True):
        after = [*end, int(policy.tokenizer.eos_token_id)]
        if len(before) + len(after) > max_tokens:
            raise DataError(
                f"a text of {len(before) + len(after)} tokens exceeds max_tokens = {max_tokens}: {prompt[:40]!r}... "
                "Texts are not cut: raise max_tokens, or remove it."
            )
        found.append(Encoded(before, after))
    return found


def tokens_of(policy: Policy, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    """Tokens of every text. The name of a special token that stands in a text is read letter by letter.

    Args:
        policy: has the tokenizer.
        texts: of a user: "<eos>" in one of them must not end it.
        special: whether the tokenizer's own special tokens are added.
    """
    if not texts:
        return []
    # one call: ten times faster than a call a text
    found = policy.tokenizer(list(texts), add_special_tokens=special, split_special_tokens=True)["input_ids"]
    return [list(row) for row in found]


def log_probs(
    policy: Policy,
    rows: Sequence[Encoded],
    *,
    batch_size: int = BATCH,
    share: bool = True,
    padding: Padding = "right",
) -> Tensor:
    """log p(target | prompt) of every row, summed over tokens: (len(rows),) float64, <= 0.

    Equal rows are scored once. With ``share``, the keys and values of a prefix that several prompts have in common are
    computed once; prefixes are chosen such that the fewest tokens are computed.

    Args:
        policy: model and tokenizer.
        rows: prompts and targets as tokens.
        batch_size: rows a forward pass.
        share: whether prefixes are shared.
        padding: side on which shorter rows are filled up; with ``share`` prefixes are always filled up on the left.
    """
    if not rows:
        return torch.zeros(0, dtype=torch.float64)
    keys = [(tuple(r.prompt), tuple(r.target)) for r in rows]
    place = {key: i for i, key in enumerate(sorted(set(keys)))}
    unique = [Encoded(list(prompt), list(target)) for prompt, target in place]
    groups = _groups(unique) if share else [_Group([i], 0) for i in range(len(unique))]
    was_training = policy.model.training
    policy.model.eval()
    found = torch.zeros(len(unique), dtype=torch.float64)
    with torch.inference_mode():
        for chunk in _chunks(groups, batch_size):
            before, cache = _prefill(policy, [unique[g.rows[0]].prompt[: g.length] for g in chunk])
            members = [(i, k) for k, g in enumerate(chunk) for i in g.rows]
            members.sort(key=lambda m: len(unique[m[0]].prompt) - chunk[m[1]].length + len(unique[m[0]].target))
            some = [unique[i] for i, _ in members]
            for part in _batches(some, batch_size, policy.model.config.vocab_size):
                owner = torch.tensor([k for _, k in members[part]], device=policy.device)
                values = _forward(policy, some[part], before, cache, owner, padding)
                found[[i for i, _ in members[part]]] = values.double().cpu()
    policy.model.train(was_training)
    if found.isnan().any():
        raise DataError(
            "the model gives NaN as a log-probability: its weights are not numbers. Fit it again with a smaller "
            "learning_rate."
        )
    return found[[place[key] for key in keys]]


def _groups(rows: Sequence[Encoded], largest: int = LARGEST) -> list[_Group]:
    """Sorted rows in groups with a common prefix, chosen such that the fewest tokens are computed.

    A group of n rows that share d tokens saves d (n - 1). Groups are runs of the sorted rows:
    saved[end] = max(saved[end - 1], max over start of saved[start] + d(start, end) (end - start - 1)).

    Args:
        rows: sorted by prompt.
        largest: rows a group.
    """
    prompts = [r.prompt for r in rows]
    shared = [0, *(_common(a, b) for a, b in pairwise(prompts))]
    saved, cut = [0] * (len(rows) + 1), [(0, 0)] * (len(rows) + 1)
    for end in range(1, len(rows) + 1):
        saved[end], cut[end] = saved[end - 1], (end - 1, 0)
        length = len(prompts[end - 1]) - 1  # the last token of a prompt predicts the target
        for start in range(end - 2, max(-1, end - 1 - largest), -1):
            length = min(length, shared[start + 1], len(prompts[start]) - 1)
            if length <= 0:
                break
            if (value := saved[start] + length * (end - start - 1)) > saved[end]:
                saved[end], cut[end] = value, (start, length)
    groups, end = list[_Group](), len(rows)
    while end:
        start, length = cut[end]
        groups.append(_Group(list(range(start, end)), length))
        end = start
    return groups


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _chunks(groups: Sequence[_Group], size: int) -> list[list[_Group]]:
    """Groups whose prefixes are computed together: at most ``size``, of similar length; those without one apart."""
    ordered = sorted(groups, key=lambda g: g.length)
    bare = [g for g in ordered if not g.length]
    shared = ordered[len(bare) :]
    chunks: list[list[_Group]] = []
    for group in shared:
        if not chunks or len(chunks[-1]) == size or (len(chunks[-1]) + 1) * group.length > POSITIONS:
            chunks.append([])
        chunks[-1].append(group)
    return [bare, *chunks] if bare else chunks


def _batches(rows: Sequence[Encoded], size: int, vocabulary: int) -> list[slice]:
    """Rows that share a forward pass: as many as ``size``, the cached positions and the logits allow, one at least."""
    found: list[slice] = []
    start = longest = target = 0
    for i, row in enumerate(rows):
        longest, target = max(longest, len(row.prompt) + len(row.target)), max(target, len(row.target))
        count = i + 1 - start
        if count > 1 and (count > size or count * longest > POSITIONS or count * target * vocabulary > LOGITS):
            found.append(slice(start, i))
            start, longest, target = i, len(row.prompt) + len(row.target), len(row.target)
    return [*found, slice(start, len(rows))] if rows else []


def _prefill(policy: Policy, prefixes: Sequence[Sequence[int]]) -> tuple[Tensor, Any]:
    """Mask of the prefixes, (G, P) filled up on the left, and their keys and values; None if all are empty."""
    before, mask = padded(prefixes, policy.pad, "left", policy.device)
    if not mask.shape[1]:
        return mask, None
    out = policy.model(
        input_ids=before,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    return mask, out.past_key_values


def _forward(
    policy: Policy, rows: Sequence[Encoded], before: Tensor, cache: Any, owner: Tensor, padding: Padding
) -> Tensor:
    """Scores of these rows; ``owner`` is the prefix of each, (B,)."""
    lengths = before.sum(-1)[owner]  # (B,)
    own = [(r.prompt + r.target)[n:] for r, n in zip(rows, lengths.tolist(), strict=True)]
    ids, mask = padded(own, policy.pad, padding, policy.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0) + lengths[:, None]
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
    if cache is not None:
        mine = copy.deepcopy(cache)
        mine.batch_select_indices(owner)
        inputs |= {
            "attention_mask": torch.cat([before[owner], mask], 1),
            "past_key_values": mine,
            "use_cache": True,
        }
    labels = _labels(ids, mask, [len(r.target) for r in rows])
    keep = (labels[:, 1:] != -100).any(0).nonzero()[:, 0]  # (k,) positions before a target token
    logits = policy.model(**inputs, logits_to_keep=keep).logits.float()  # (B, k, V)
    target = labels[:, keep + 1]
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(), ignore_index=-100, reduction="none"
    ).view_as(target)
    return -nll.double().sum(-1)


def _labels(ids: Tensor, mask: Tensor, targets: Sequence[int]) -> Tensor:
    """The last ``targets[i]`` tokens of row i that are no padding; -100 elsewhere, (B, T)."""
    behind = mask.flip(-1).cumsum(-1).flip(-1) * mask  # (B, T): 1 at the last token of the row
    sizes = torch.tensor(targets, device=ids.device)[:, None]
    return torch.where((behind > 0) & (behind <= sizes), ids, -100)


def padded(rows: Sequence[Sequence[int]], pad: int, side: Padding, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens and mask, (B, T) each, filled up on one side."""
    width = max(len(r) for r in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, r in enumerate(rows):
        place = slice(width - len(r), width) if side == "left" else slice(len(r))
        ids[i, place], mask[i, place] = torch.tensor(r, dtype=torch.long), 1
    return ids.to(device), mask.to(device)


@torch.inference_mode()
def generate(policy: Policy, prompts: Sequence[str], *, max_new_tokens: int, batch_size: int = BATCH) -> list[str]:
    """What the model writes after each prompt, the most probable token each time, up to its end token.

    Equal prompts are run once. A text that does not end within ``max_new_tokens`` is returned as it is.
    """
    unique = sorted(set(prompts), key=len)
    policy.model.eval()
    found: dict[str, str] = {}
    rows = [Encoded(row, [0] * max_new_tokens) for row in tokens_of(policy, unique)]
    for part in _batches(rows, batch_size, 0):  # only the last logits of a prompt are computed
        written = _greedy(policy, [row.prompt for row in rows[part]], max_new_tokens)
        for text, tokens in zip(unique[part], written, strict=True):
            found[text] = policy.text(tokens)
    return [found[prompt] for prompt in prompts]


def _greedy(policy: Policy, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
    ids, mask = padded(prompts, policy.pad, "left", policy.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    ends = torch.tensor(policy.ends, device=policy.device)
    alive = torch.arange(len(prompts), device=policy.device)
    found: list[list[int]] = [[] for _ in prompts]
    cache = None
    for _ in range(max_new_tokens):
        out = policy.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, new = out.past_key_values, out.logits[:, -1].argmax(-1)
        for row, token in zip(alive.tolist(), new.tolist(), strict=True):
            found[row].append(token)
        going = (~torch.isin(new, ends)).nonzero()[:, 0]
        if not len(going):
            break
        if len(going) < len(alive):  # rows that ended cost nothing more
            cache.batch_select_indices(going)
            alive, mask, positions, new = alive[going], mask[going], positions[going], new[going]
        ids, mask = new[:, None], torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = positions[:, -1:] + 1
    return [tokens[:-1] if tokens[-1] in policy.ends else tokens for tokens in found]
