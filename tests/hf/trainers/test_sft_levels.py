"""What p is taken of: every level against loops over sequences, lines and tokens; measured rates; the margin."""

import itertools
import math
from collections import Counter

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from operant import Sampler
from operant.core.checks import DataError, InputError
from operant.hf.rollouts.collect import SuccessRate
from operant.hf.rollouts.logprobs import answer_log_probs
from operant.hf.rollouts.policy import Encoded, Policy
from operant.hf.rollouts.sampling import RolloutSettings
from operant.hf.trainers.rates import RATES
from operant.hf.trainers.sft import AlignedSFTConfig, AlignedSFTTrainer
from operant.verify import Prompt, Verdict, verify

COMMON = dict(
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    learning_rate=0.3,
    optim="sgd",
    max_grad_norm=0.0,
    lr_scheduler_type="constant",
    logging_steps=1,
    save_strategy="no",
    seed=5,
)
N = 64
PROMPTS = ["12", "3", "451", "77"]
SOLUTIONS = [(0, "1\n2"), (1, "34\n\n5"), (1, "6"), (2, "7\n8\n"), (3, "9"), (3, "1\n1"), (3, "2")]
PACKED = {"packing": True, "max_length": 16}


def policy_of(dropout=0.0, sharp=12.0):
    """A random Llama whose tokens are characters, the newline among them; sharp enough that p differs."""
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<eos>", "<unk>", "\n", *"0123456789"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        attention_dropout=dropout,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(11)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight *= sharp
    return Policy(model, fast)


def ids(policy, text):
    return policy.tokenizer(text)["input_ids"]


def rows_of(policy):
    rows = []
    for index, solution in SOLUTIONS:
        prompt, target = ids(policy, PROMPTS[index]), [*ids(policy, solution), 1]
        rows.append(
            {"input_ids": prompt + target, "labels": [-100] * len(prompt) + target, "prompt_index": index},
        )
    return rows


def trainer_of(path, *, measure=None, policy=None, steps=1, **settings):
    policy = policy or policy_of()
    return AlignedSFTTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        train_dataset=Dataset.from_list(rows_of(policy)),
        measure=measure,
        args=AlignedSFTConfig(
            output_dir=str(path),
            max_steps=steps,
            **{"strategy": f"pass@{N}", "per_device_train_batch_size": len(SOLUTIONS), **COMMON, **settings},
        ),
    )


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def trained(path, **settings):
    trainer = trainer_of(path, **settings)
    trainer.train()
    return trainer


def logged(trainer, name):
    return [log[name] for log in trainer.state.log_history if name in log]


def token_log_p(policy):
    """(token, log p) of the target tokens of every row, one row at a time, with gradient."""
    found = []
    for row in rows_of(policy):
        table = policy.model(torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
        where = [i for i, label in enumerate(row["labels"]) if label != -100]
        found.append([(row["labels"][i], table[i - 1, row["labels"][i]]) for i in where])
    return found


def cost(log_p, n=N):
    return -torch.log1p(-((1 - log_p.exp()) ** n))


def lines(tokens, newline=3):
    """Log-probabilities of the lines of a target; a newline ends its line."""
    found, current = [], []
    for token, log_p in tokens:
        current.append(log_p)
        if token == newline:
            found, current = [*found, sum(current)], []
    return [*found, sum(current)] if current else found


def slow(policy, level, rates=None, n=N):
    """The loss of the whole data set by loops."""
    rows = token_log_p(policy)
    if level == "sequence":
        return sum(cost(sum(p for _, p in row), n) for row in rows) / len(rows)
    if level == "token":
        return sum(cost(p, n) for row in rows for _, p in row) / len(rows)
    if level == "step":
        return sum(cost(p, n) for row in rows for p in lines(row)) / len(rows)
    total, owners = 0.0, Counter(index for index, _ in SOLUTIONS)
    for (index, _), row in zip(SOLUTIONS, rows, strict=True):
        p = rates[index]
        weight = 1.0 if p == 0 else n * p * (1 - p) ** (n - 1) / (1 - (1 - p) ** n)
        total += weight / owners[index] * -sum(log_p for _, log_p in row)
    return total / len(owners)  # the mean over prompts of the mean over their solutions


def stepped(level, rates=None, n=N):
    policy = policy_of()
    slow(policy, level, rates, n).backward()
    return torch.cat([(p - 0.3 * p.grad).detach().flatten() for p in policy.model.parameters()])


RATE = [0.0, 0.25, 0.05, 1.0]


def fixed():
    return torch.tensor(RATE, dtype=torch.float64)


@pytest.mark.parametrize("layout", [{}, PACKED, {"padding_free": True}], ids=["padded", "packed", "padding-free"])
@pytest.mark.parametrize("level", ["sequence", "token", "step", "answer"])
def test_a_step_at_every_level_is_that_of_loops(tmp_path, level, layout):
    measure, rates = (fixed, RATE) if level == "answer" else (None, None)
    trainer = trained(tmp_path, level=level, measure=measure, **layout)
    assert torch.allclose(parameters(trainer), stepped(level, rates), atol=2e-6)
    assert logged(trainer, "loss")[0] == pytest.approx(slow(policy_of(), level, rates).item(), rel=1e-3)


def test_the_levels_take_different_steps_and_are_cross_entropy_for_one_sample():
    steps = [stepped(level, RATE) for level in ("sequence", "token", "step", "answer")]
    for a, b in itertools.combinations(steps, 2):
        assert (a - b).abs().max() > 1e-3
    for level in ("token", "step"):
        assert torch.allclose(stepped(level, n=1), stepped("sequence", n=1), atol=1e-6)


@pytest.mark.parametrize("level", ["token", "step", "answer"])
def test_mixtures_and_accumulation_at_every_level(tmp_path, level):
    settings = {"level": level, "measure": fixed if level == "answer" else None, "steps": 2}
    mixture = f"mix(pass@1:0.25, pass@{N}:0.75)"
    whole = trained(tmp_path, strategy=mixture, **settings)
    layout = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert torch.allclose(
        parameters(trained(tmp_path, strategy=mixture, **settings, **layout)), parameters(whole), atol=2e-6
    )
    assert (parameters(whole) - parameters(trained(tmp_path, strategy="pass@1", **settings))).abs().max() > 1e-3


def test_evaluation_at_answer_level_is_the_cross_entropy(tmp_path):
    trainer = trainer_of(tmp_path, level="answer", measure=fixed, per_device_eval_batch_size=len(SOLUTIONS))
    expected = -sum(p for row in token_log_p(policy_of()) for _, p in row) / len(SOLUTIONS)
    found = trainer.evaluate(Dataset.from_list(rows_of(policy_of())))["eval_loss"]
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_rates_are_measured_on_schedule_and_change_the_weights(tmp_path):
    calls = []

    def measure():
        calls.append(trainer.state.global_step)
        return torch.full((4,), 0.02 * len(calls), dtype=torch.float64)

    trainer = trainer_of(tmp_path, level="answer", refresh_steps=2, steps=5, measure=measure)
    trainer.train()
    assert calls == [0, 2, 4]
    rates = [0.02, 0.02, 0.04, 0.04, 0.06]
    expected = [N * p * (1 - p) ** (N - 1) / (1 - (1 - p) ** N) for p in rates]
    assert logged(trainer, "success_rate") == pytest.approx(rates)
    assert logged(trainer, "weight_mean") == pytest.approx(expected)
    calls.clear()
    trainer = trainer_of(tmp_path, level="answer", steps=3, measure=measure)
    trainer.train()
    assert calls == [0]


def test_measuring_leaves_training_as_it_was(tmp_path):
    """Dropout and data order: a measurement that draws numbers and switches modes changes no step."""
    policy = policy_of(dropout=0.3)

    def disturbing():
        torch.rand(1000)
        policy.model.eval()
        return fixed()

    settings = {"level": "answer", "refresh_steps": 1, "steps": 3, "per_device_train_batch_size": 3}
    loud = trained(tmp_path, policy=policy, measure=disturbing, **settings)
    quiet = trained(tmp_path, policy=policy_of(dropout=0.3), measure=fixed, **settings)
    assert torch.equal(parameters(loud), parameters(quiet))
    still = trained(tmp_path, policy=policy_of(), measure=fixed, **settings)
    assert not torch.equal(parameters(still), parameters(quiet))


def test_an_unknown_rate_is_the_last_one_or_the_mean_of_the_others(tmp_path):
    nan = math.nan
    answers = iter([[0.0, 0.5, nan, 1.0], [nan, 0.25, 0.75, nan]])
    trainer = trainer_of(
        tmp_path, level="answer", refresh_steps=1, steps=2, measure=lambda: torch.tensor(next(answers))
    )
    trainer.train()
    assert trainer.state.stateful_callbacks[RATES]["rates"] == [0.0, 0.25, 0.75, 1.0]
    assert logged(trainer, "success_rate")[0] == pytest.approx(0.5)
    assert logged(trainer, "success_rate_unknown") == pytest.approx([0.25, 0.5])
    with pytest.raises(DataError, match="no success rate could be measured"):
        trainer_of(tmp_path, level="answer", measure=lambda: torch.full((4,), nan)).train()
    with pytest.raises(DataError, match="P > 3"):
        trainer_of(tmp_path, level="answer", measure=lambda: torch.zeros(3)).train()
    with pytest.raises(InputError, match="success_rate must lie in"):
        trainer_of(tmp_path, level="answer", measure=lambda: torch.full((4,), 1.5)).train()


def test_rows_without_a_prompt_index_are_refused(tmp_path):
    policy = policy_of()
    rows = [{"input_ids": [4, 5], "labels": [-100, 5]}]
    with pytest.raises(DataError, match="needs a column prompt_index"):
        AlignedSFTTrainer(
            model=policy.model,
            processing_class=policy.tokenizer,
            train_dataset=Dataset.from_list(rows),
            measure=fixed,
            args=AlignedSFTConfig(output_dir=str(tmp_path), level="answer", **COMMON),
        )


@pytest.mark.parametrize(("rates", "constant"), [([0.0] * 4, True), (RATE, False)])
def test_constant_weights_are_said_to_be(tmp_path, caplog, rates, constant):
    trained(tmp_path, level="answer", measure=lambda: torch.tensor(rates))
    assert ("the weights of pass@64 are constant" in caplog.text) == constant
    assert ("about the same measured success rate" in caplog.text) == constant


# Measuring


def exact(prompts, completions):
    return verify([(p.target, c) for p, c in zip(prompts, completions, strict=True)], "exact")[0]


def odd(prompts, completions):
    return [Verdict(float(text[:1] in {*"13579"}), None) for text in completions]


def rate_of(policy, check=exact, *, rollouts=64, targets=("1", "2", "3", "4"), **settings):
    prompts = [Prompt(str(i), text, target) for i, (text, target) in enumerate(zip(PROMPTS, targets, strict=True))]
    encoded = [Encoded(ids(policy, p.text), [*ids(policy, p.target), 1]) for p in prompts]
    drawn = RolloutSettings(rollouts, max_new_tokens=4, batch_size=3, **settings)
    return SuccessRate(policy, prompts, encoded, check, drawn, fresh="seed" not in settings)


def spelled(policy, token, length=4):
    """Every completion of at most ``length`` tokens that is read as this one: <pad>, <unk> and newlines drop out."""
    for size in range(length + 1):
        for tokens in itertools.product([token, 0, 2, 3], repeat=size):
            if policy.text(tokens).strip() == policy.text([token]):
                yield [*tokens, 1] if size < length else list(tokens)


def test_rates_are_the_exact_probabilities_within_their_error():
    policy, rollouts = policy_of(sharp=1), 4000
    sampler = Sampler(temperature=0.7)
    rate = rate_of(policy, rollouts=rollouts, seed=2, sampler=sampler)
    p = torch.stack(
        [
            answer_log_probs(
                policy,
                [Encoded(row.prompt, tokens) for tokens in spelled(policy, row.target[0])],
                batch_size=100,
                sampler=sampler,
            )
            .exp()
            .sum()
            for row in rate.encoded
        ]
    )
    assert p.min() > 1e-3
    assert ((rate() - p).abs() <= 4 * (p * (1 - p) / rollouts).sqrt()).all()


def test_failed_verdicts_drop_out_and_are_counted():
    """The first prompt's verifier hangs always, the second's on every other rollout, the rest never."""
    turns = Counter()

    def check(prompts, completions):
        verdicts = []
        for prompt in prompts:
            turns[prompt.id] += 1
            failed = prompt.id == "0" or (prompt.id == "1" and turns["1"] % 2 == 0)
            verdicts.append(Verdict(None, None, "timeout") if failed else Verdict(float(prompt.id != "3"), None))
        return verdicts

    rate = rate_of(policy_of(), check, rollouts=10)
    assert rate().tolist() == pytest.approx([math.nan, 1.0, 1.0, 0.0], nan_ok=True)
    assert rate.failures == {"timeout": 15}
    with pytest.raises(InputError, match="rewards of 0 or 1"):
        rate_of(policy_of(), lambda p, c: [Verdict(0.5, None)] * len(c))()
    with pytest.raises(InputError, match="one verdict a completion"):
        rate_of(policy_of(), lambda p, c: [])()


def test_rates_follow_their_seed_or_the_global_one_and_leave_the_model_training():
    policy = policy_of(sharp=1)
    policy.model.train()
    rate = rate_of(policy, odd, seed=1)
    assert torch.equal(rate(), rate())
    rate = rate_of(policy, odd)
    torch.manual_seed(0)
    first, second = rate(), rate()
    torch.manual_seed(0)
    assert torch.equal(first, rate())
    assert not torch.equal(first, second)
    assert policy.model.training


def test_resumed_equals_uninterrupted_at_answer_level(tmp_path):
    """Killed between two measurements: the rates in use come back, and the next one draws what it would have drawn."""

    def run(path, **resume):
        policy = policy_of(sharp=1)
        rate = rate_of(policy, odd, rollouts=8)
        settings = {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 3, "refresh_steps": 3}
        trainer = trainer_of(path, policy=policy, level="answer", measure=rate, steps=6, **settings)
        trainer.train(**resume)
        return trainer

    whole = run(tmp_path / "whole")
    resumed = run(tmp_path / "again", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert torch.equal(parameters(whole), parameters(resumed))
    assert logged(whole, "weight_mean")[2:] == logged(resumed, "weight_mean")[2:]
    assert logged(whole, "success_rate")[2] != logged(whole, "success_rate")[3]


# The margin


def margin_by_hand(policy):
    """Mean over sequences of the sum over target tokens of the expected softplus(z_r - z_gold)."""
    total = 0.0
    for row in rows_of(policy):
        logits = policy.model(torch.tensor([row["input_ids"]])).logits[0].double()
        for i, label in enumerate(row["labels"]):
            if label != -100:
                others = [v for v in range(logits.shape[-1]) if v != label]
                q = logits[i - 1, others].softmax(-1).detach()
                total = total + (q * torch.log1p((logits[i - 1, others] - logits[i - 1, label]).exp())).sum()
    return total / len(SOLUTIONS)


@pytest.mark.parametrize("layout", [{}, PACKED], ids=["padded", "packed"])
def test_the_margin_is_mixed_with_the_loss(tmp_path, layout):
    policy = policy_of()
    (0.25 * slow(policy, "sequence") + 0.75 * margin_by_hand(policy)).backward()
    expected = torch.cat([(p - 0.3 * p.grad).detach().flatten() for p in policy.model.parameters()])
    exact = trained(tmp_path, margin=0.75, rivals=0, **layout)
    assert torch.allclose(parameters(exact), expected, atol=2e-6)


def test_drawn_rivals_are_seeded_and_near_their_expectation(tmp_path):
    runs = [trained(tmp_path, margin=0.5, rivals=r) for r in (4, 4, 20_000, 0)]
    few, again, many, expected = (parameters(run) for run in runs)
    assert torch.equal(few, again)
    assert (few - expected).norm() > 5 * (many - expected).norm() > 0
