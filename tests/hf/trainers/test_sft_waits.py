"""SFT does not wait for the device: without a GPU, on meta tensors, which have no value to wait for."""

from __future__ import annotations

import math
import traceback
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from torch.utils._python_dispatch import TorchDispatchMode

from operant import PassAt, parse, sft_loss
from operant.core.checks import DeferredChecks, InputError, check_log_p
from operant.estimators import Transform
from operant.hf.rollouts.policy import encode, load_policy
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.trainers import targets
from operant.hf.trainers.layout import LAYOUT
from operant.hf.trainers.sft import AlignedSFTConfig, AlignedSFTTrainer
from operant.objectives.margin import token_margin
from operant.objectives.sft import elasticity, elasticity_at

COMMON = dict(
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    logging_steps=1,
    save_strategy="no",
    max_steps=1,
    per_device_train_batch_size=4,
)
LAYOUTS = {"padded": {}, "padding-free": {"padding_free": True}, "packed": {"packing": True, "max_length": 40}}
SIZED_BY_DATA = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "bincount", "unique2")


class Waits(TorchDispatchMode):
    """Notes every operation for which the host of a GPU waits, with the files that called it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        indexed = name.startswith("index") and len(args) > 1 and isinstance(args[1], (list, tuple))
        masks = indexed and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
        moved = name in ("_to_copy", "copy_") and len({x.device for x in (out, *args) if torch.is_tensor(x)}) > 1
        one = name == "multinomial" and args[1] == 1
        if name in SIZED_BY_DATA or masks or moved or one:
            self.found.append((name, [frame.filename for frame in traceback.extract_stack()]))
        return out


class MetaModel(torch.nn.Module):
    """The outputs of a causal model without values: logits of the kept positions, or those of TRL's fused head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(64, 64, device="meta")

    def forward(self, input_ids, labels=None, logits_to_keep=None, fused_lm_head=False, **_):
        logits = self.table(input_ids)
        if not fused_lm_head:
            return SimpleNamespace(logits=logits[:, logits_to_keep])
        some = logits[:, 1:, 0]
        return SimpleNamespace(log_probs=some, entropy=some, is_top1=some > 0)


@pytest.fixture(scope="module")
def policy():
    return load_policy("embedded", seed=3, device="cpu")


def trainer_of(folder, policy, *, level="sequence", strategy="pass@16", **settings):
    encoded = encode(policy, load_prompts(DataConfig())[0][:8], DataConfig(), 64)
    rows = [{"input_ids": e.prompt + e.target, "labels": [-100] * len(e.prompt) + e.target} for e in encoded]
    if level == "answer":
        rows = [{**row, "prompt_index": i % 3} for i, row in enumerate(rows)]
    return AlignedSFTTrainer(
        policy.model,
        AlignedSFTConfig(output_dir=str(folder), level=level, strategy=strategy, **COMMON, **settings),
        measure=(lambda: torch.tensor([0.1, 0.5, 0.9])) if level == "answer" else None,
        processing_class=policy.tokenizer,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
    )


def on_meta(batch):
    """What the data loader hands over: the columns and the layout on the device."""
    return {name: value.to("meta") if hasattr(value, "to") else value for name, value in batch.items()}


@pytest.mark.parametrize("level", ["sequence", "answer", "token", "step"])
@pytest.mark.parametrize("form", LAYOUTS)
def test_no_value_of_the_device_is_needed(tmp_path, policy, monkeypatch, level, form):
    trainer = trainer_of(tmp_path, policy, level=level, **LAYOUTS[form])
    batch = on_meta(next(iter(trainer.get_train_dataloader())))
    if trainer.rates is not None:
        trainer.rates.update(trainer.state, policy.model, torch.device("cpu"))
        trainer.rates.rates, trainer.rates.share = trainer.rates.rates.to("meta"), trainer.rates.share.to("meta")
    model = MetaModel()
    for fused in (False, True):
        monkeypatch.setattr(targets, "has_fused_head", lambda _, fused=fused: fused)
        for train in (True, False):
            model.train(train)
            with Waits() as waits:
                trainer.get_batch_samples(iter([batch]), 1, torch.device("meta"))
                loss = trainer.compute_loss(model, dict(batch))
            assert loss.is_meta and not waits.found, waits.found


@pytest.mark.parametrize(
    "strategy",
    ["pass@1", "pass^4", "threshold@8:3", "table(0, 0.5, 1)", "mix(pass@1:0.25, pass@64:0.75)", "harmonic(pass@8)"],
)
def test_no_strategy_copies_to_the_device_or_asks_it(strategy):
    s, log_p = parse(strategy), torch.empty(5, dtype=torch.float64, device="meta")
    s.success(log_p)  # tables are built once per device
    checks = DeferredChecks()
    for transform in (None, *map(Transform.parse, ("log:0.02", "arcsin", "logit:0.1"))):
        with Waits() as waits, checks.collect():
            assert sft_loss(s, log_p, transform=transform).is_meta and elasticity(s, log_p, transform).is_meta
        assert not waits.found


@pytest.mark.parametrize("rivals", [0, 1, 4])
def test_the_margin_and_measured_rates_ask_nothing(rivals):
    checks, generator = DeferredChecks(), torch.Generator().manual_seed(0)
    with Waits() as waits, checks.collect():
        token_margin(torch.randn(3, 5, generator=generator), torch.tensor([0, 1, 4]), rivals=rivals)
        elasticity_at(PassAt(16), torch.tensor([0.0, 0.5]))
    assert not waits.found
    checks.raise_found()


def test_the_guard_sees_what_waits():
    x = torch.tensor([1.0, -1.0])
    with Waits() as waits:
        x[x > 0], int(x.sum()), x.to("meta"), bool((x > 0).any()), x.nonzero(), torch.multinomial(x.abs(), 1)
    assert len(waits.found) == 6
    with Waits() as waits:
        x[torch.tensor([0])], x.sum(), torch.where(x > 0, x, 0.0), torch.multinomial(x.abs(), 2, replacement=True)
    assert not waits.found


def test_what_is_left_is_in_the_forward_pass_of_transformers(tmp_path, policy):
    """transformers looks whether the attention mask has any padding, once a forward pass."""
    trainer = trainer_of(tmp_path, policy)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    with Waits() as waits:
        trainer.compute_loss(policy.model.train(), batch)
    assert len(waits.found) <= 1
    assert all(any("masking_utils" in name for name in files) for _, files in waits.found)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_what_is_not_finite_is_never_trained_on(tmp_path, policy, accumulation):
    """The loss does not wait for the check; the optimizer's step does."""
    trainer = trainer_of(tmp_path, policy, gradient_accumulation_steps=accumulation)
    loss, micro = trainer.compute_loss, []

    def first_is_nan(model, inputs, **kwargs):
        with torch.no_grad():
            kept = model.lm_head.weight[0, 0].item()
            model.lm_head.weight[0, 0] = kept if micro else math.nan
            micro.append(loss(model, inputs, **kwargs))
            model.lm_head.weight[0, 0] = kept
        return sum(p.sum() for p in model.parameters())

    trainer.compute_loss = first_is_nan
    before = [p.detach().clone() for p in policy.model.parameters()]
    with pytest.raises(InputError, match="log_p must be finite, got 4 of 4 values that are not"):
        trainer.train()
    assert len(micro) == accumulation and trainer.state.global_step == 0
    assert all(map(torch.equal, before, policy.model.parameters()))


@pytest.mark.parametrize("level", ["sequence", "answer"])
def test_evaluation_of_a_model_that_is_nan_is_an_error(tmp_path, level):
    policy = load_policy("embedded", seed=3, device="cpu")
    trainer = trainer_of(tmp_path, policy, level=level)
    with torch.no_grad():
        policy.model.lm_head.weight[0, 0] = math.nan
    with pytest.raises(InputError, match="log_p must be finite"):
        trainer.evaluate()
    trainer.is_deepspeed_enabled = True  # it steps within backward(): the loss itself must raise
    with pytest.raises(InputError, match="log_p must be finite"):
        trainer.compute_loss(policy.model.eval(), next(iter(trainer.get_eval_dataloader())))


@pytest.mark.parametrize(("values", "match"), [([0.1, -1.0], "1 values above"), ([math.nan, -1.0], "1 of 2 values")])
def test_a_deferred_check_is_raised_later_and_once(values, match):
    checks = DeferredChecks()
    with checks.collect():
        check_log_p(torch.tensor(values))
    with pytest.raises(InputError, match=match):
        checks.raise_found()
    checks.raise_found()
    with pytest.raises(InputError, match="log_p must be"):
        check_log_p(torch.tensor(values))


def test_a_batch_of_another_collator_takes_the_same_loss(tmp_path, policy):
    trainer = trainer_of(tmp_path, policy, level="token")
    batch = next(iter(trainer.get_train_dataloader()))
    plain = {name: value for name, value in batch.items() if name != LAYOUT}
    policy.model.train()
    for each in (batch, plain):
        trainer.get_batch_samples(iter([each]), 1, torch.device("cpu"))
    assert torch.equal(trainer.compute_loss(policy.model, batch), trainer.compute_loss(policy.model, plain))
