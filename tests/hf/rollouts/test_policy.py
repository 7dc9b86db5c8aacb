from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from operant import Sampler
from operant.core.checks import DataError
from operant.core.record import read_records
from operant.hf.config import EvaluateConfig
from operant.hf.rollouts.evaluate import evaluate
from operant.hf.rollouts.logprobs import answer_log_probs, collate, target_log_probs
from operant.hf.rollouts.policy import Encoded, add_lora, encode, load_policy, unread
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.rollouts.sampling import RolloutSettings, sample, trim
from operant.verify import Prompt


def test_target_log_probs_are_those_of_one_row_at_a_time(policy, encoded):
    batch = target_log_probs(policy.model, **collate(encoded[:16], policy.pad))
    for row, got in zip(encoded[:16], batch, strict=True):
        ids = torch.tensor([row.prompt + row.target])
        log_probs = policy.model(ids).logits[0].log_softmax(-1)
        one = sum(log_probs[len(row.prompt) + i - 1, t] for i, t in enumerate(row.target))
        assert got.item() == pytest.approx(one.item(), abs=1e-4)


def test_answer_log_probs_do_not_depend_on_the_batch(policy, encoded):
    whole = answer_log_probs(policy, encoded, batch_size=64)
    assert torch.allclose(whole, answer_log_probs(policy, encoded, batch_size=7), atol=1e-5)


def test_padding_is_invisible(policy):
    short, long = Encoded([4, 5], [6, 1]), Encoded([4, 5, 6, 7, 8], [9, 10, 11, 1])
    both = target_log_probs(policy.model, **collate([short, long], policy.pad))
    alone = target_log_probs(policy.model, **collate([short], policy.pad))
    assert both[0].item() == pytest.approx(alone[0].item(), abs=1e-5)


def test_samples_come_with_their_exact_probability(policy):
    """An embedded policy with an almost certain first token: frequencies agree with p within 4 standard errors."""
    row = Encoded([4, 5, 13, 6, 7, 14], [])
    ids = torch.tensor([row.prompt])
    p = policy.model(ids).logits[0, -1].softmax(-1)
    draws = next(sample(policy, [row], RolloutSettings(rollouts=4000, max_new_tokens=1, batch_size=1, seed=1)))
    count = torch.bincount(torch.tensor([d[0] for d in draws]), minlength=len(p)) / 4000
    assert ((count - p).abs() <= 4 * (p * (1 - p) / 4000).sqrt()).all()


def test_cold_samples_are_greedy_for_prompts_of_any_length(policy):
    """The prompts are computed once for all rollouts; what follows is what generating from scratch gives."""
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(20)
    rows = [Encoded(ids, []) for ids in ([4], [4, 5, 13, 6, 7, 14], [6, 7, 8])]
    for batch in (rows, rows[:1]):
        settings = RolloutSettings(rollouts=3, sampler=Sampler(1e-4), max_new_tokens=5, batch_size=3)
        (drawn,) = sample(policy, batch, settings)
        for i, row in enumerate(batch):
            ids = torch.tensor([row.prompt])
            out = policy.model.generate(ids, do_sample=False, max_new_tokens=5, pad_token_id=0, eos_token_id=1)
            assert drawn[3 * i : 3 * i + 3] == [trim(out[0, len(row.prompt) :].tolist(), [1])] * 3


def test_sampling_continues_where_it_stopped(policy, encoded):
    settings = RolloutSettings(rollouts=3, max_new_tokens=4, batch_size=5, seed=2)
    whole = list(sample(policy, encoded[:20], settings))
    assert list(sample(policy, encoded[:20], settings, start=2)) == whole[2:]
    assert list(sample(policy, encoded[:20], settings, start=1, step=2)) == whole[1::2]
    state = torch.get_rng_state()
    list(sample(policy, encoded[:5], settings))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "name, value",
    [
        ("suppress_tokens", [5]),
        ("min_new_tokens", 2),
        ("sequence_bias", [[[5], 9.0]]),
        ("cache_implementation", "hybrid"),  # gemma's
        ("num_return_sequences", 2),
        ("top_k", 1),
        ("typical_p", 0.2),
        ("repetition_penalty", 3.0),
        ("do_sample", False),
        ("return_dict_in_generate", True),
    ],
)
@pytest.mark.parametrize("adapted", [False, True])
def test_the_generation_settings_that_a_model_ships_do_not_count(policy, encoded, name, value, adapted):
    settings = RolloutSettings(rollouts=8, max_new_tokens=3, batch_size=4, seed=2)
    want = list(sample(policy, encoded[:4], settings))
    if adapted:
        policy = add_lora(policy, rank=2, alpha=2, seed=0)  # a fresh adapter is the identity
    setattr(policy.model.generation_config, name, value)
    assert list(sample(policy, encoded[:4], settings)) == want
    assert getattr(policy.model.generation_config, name) == value


def test_trim_keeps_the_first_end():
    assert trim([4, 1, 5, 1], (1,)) == [4, 1]
    assert trim([4, 5], (1,)) == [4, 5]


def test_long_examples_are_refused_not_cut(policy):
    with pytest.raises(DataError, match="1 of 2 examples are longer than max_tokens = 10"):
        encode(policy, [Prompt(0, "1*1=", "1"), Prompt(1, "1*1=" * 4, "1")], DataConfig(), 10)


def test_text_survives_the_embedded_tokenizer(policy):
    ids = policy.tokenizer("23*47=1081")["input_ids"]
    assert policy.tokenizer.decode(ids) == "23*47=1081"
    assert sum(p.numel() for p in policy.model.parameters()) == pytest.approx(100_000, rel=0.01)


def test_saved_and_loaded_is_the_same_policy(policy, encoded, tmp_path):
    policy.save(tmp_path / "model")
    loaded = load_policy(str(tmp_path / "model"), device="cpu")
    before = answer_log_probs(policy, encoded, batch_size=32)
    assert torch.equal(before, answer_log_probs(loaded, encoded, batch_size=32))
    assert loaded.tokenizer.decode([4, 5]) == policy.tokenizer.decode([4, 5])


def test_an_adapter_is_saved_and_loaded(policy, encoded, tmp_path):
    policy.save(tmp_path / "base")
    based = load_policy(str(tmp_path / "base"), device="cpu")
    adapted = add_lora(based, rank=4, alpha=8, seed=0)
    with torch.no_grad():
        for name, p in adapted.model.named_parameters():
            if "lora_B" in name:
                p.fill_(0.01)
    adapted.save(tmp_path / "adapter")
    loaded = load_policy(str(tmp_path / "adapter"), device="cpu", trainable=True)
    before = answer_log_probs(adapted, encoded, batch_size=32)
    assert torch.allclose(before, answer_log_probs(loaded, encoded, batch_size=32))
    assert any(p.requires_grad for p in loaded.model.parameters())


def test_a_missing_model_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match="folder written by save_pretrained"):
        load_policy(str(tmp_path / "nothing"))


def sharp(policy):
    """The embedded policy with an untied head: logits of spread 2, so that temperature and nucleus matter."""
    weight = torch.randn(policy.model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0)) / 4
    policy.model.lm_head.weight = torch.nn.Parameter(weight)
    return policy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 1.0), (1.0, 0.7), (1.7, 0.9), (0.3, 0.05)])
def test_the_nucleus_is_that_of_transformers(temperature, top_p, dtype):
    logits = 3 * torch.randn(200, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    want = TemperatureLogitsWarper(temperature)(None, logits.float())
    want = TopPLogitsWarper(top_p)(None, want)
    assert torch.equal(Sampler(temperature, top_p).log_probs(logits), want.log_softmax(-1))


def test_samples_come_with_the_probability_of_their_sampler(policy):
    """Frequencies of two-token completions at temperature 0.7, top_p 0.8, and a model that ships other settings."""
    policy, sampler = sharp(policy), Sampler(0.7, 0.8)
    policy.model.generation_config.repetition_penalty = 3.0
    policy.model.generation_config.min_p = 0.5
    prompt, count = [4, 5, 13, 6, 7, 14], 3000
    settings = RolloutSettings(rollouts=count, sampler=sampler, max_new_tokens=2, batch_size=1, seed=1)
    drawn = Counter(tuple(d) for d in next(sample(policy, [Encoded(prompt, [])], settings)))
    pairs = [(a, b) for a in range(len(policy.tokenizer)) for b in range(len(policy.tokenizer))]
    log_p = answer_log_probs(policy, [Encoded(prompt, [*pair]) for pair in pairs], batch_size=64, sampler=sampler)
    inside = {pair: p for pair, p in zip(pairs, log_p.exp().tolist(), strict=True) if p > 0}
    assert sum(inside.values()) == pytest.approx(1, abs=1e-5)
    assert 10 < len(inside) < len(pairs) / 2 and log_p.isneginf().sum() == len(pairs) - len(inside)
    starts = {pair[0]: sum(n for d, n in drawn.items() if d[0] == pair[0]) for pair in inside}
    for token, n in starts.items():
        p = sum(q for pair, q in inside.items() if pair[0] == token)
        assert abs(n / count - p) <= 4 * (p * (1 - p) / count) ** 0.5
    assert all(d in inside or d == (1,) for d in drawn)
    for pair, p in inside.items():
        if pair[0] != 1:  # a completion that ends at once has no second token
            assert abs(drawn[pair] / count - p) <= 4 * (p * (1 - p) / count) ** 0.5 + 1 / count


def test_the_sum_over_tokens_is_the_samplers_own(policy, encoded):
    policy, sampler = sharp(policy), Sampler(0.7)
    rows = encoded[:8]
    want = []
    for row in rows:
        logits = policy.model(torch.tensor([row.prompt + row.target])).logits[0, len(row.prompt) - 1 : -1]
        want.append(sampler.log_prob(logits, torch.tensor(row.target)).item())
    got = answer_log_probs(policy, rows, batch_size=4, sampler=sampler)
    assert got.tolist() == pytest.approx(want, rel=1e-5)
    assert not torch.allclose(got, answer_log_probs(policy, rows, batch_size=4), rtol=0.01)


def test_the_exact_curve_belongs_to_the_sampler_of_the_evaluation(tmp_path):
    data = DataConfig(test_limit=40)
    config = EvaluateConfig(
        output_dir=tmp_path / "e",
        data=data,
        rollouts=2,
        temperature=0.05,
        top_p=0.5,
        max_new_tokens=2,
        verifier="exact",
    )
    found = [r["values"]["exact pass@1"] for r in read_records(evaluate(config) / "prompts.jsonl")]
    policy = load_policy("embedded", seed=0)
    rows = encode(policy, load_prompts(data)[1], data, 64)
    log_p = answer_log_probs(policy, rows, batch_size=32, sampler=Sampler(0.05, 0.5))
    assert found == log_p.exp().tolist() and bool(log_p.isneginf().any())


def test_a_model_without_some_of_its_weights_is_refused(tmp_path, policy):
    """transformers would fill them with random numbers."""
    policy.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    load_policy(str(tmp_path), device="cpu")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"lacks 1 of its weights, for example model\.layers\.1\.mlp\.up_proj"):
        load_policy(str(tmp_path), device="cpu")
    for damage in (b"", b"\x00" * 100, (tmp_path / "model.safetensors").read_bytes()[:500]):
        (tmp_path / "model.safetensors").write_bytes(damage)
        with pytest.raises(DataError, match="cannot load a causal language model"):
            load_policy(str(tmp_path), device="cpu")


def test_characters_that_the_tokenizer_does_not_know_are_named() -> None:
    policy, data = load_policy("embedded"), DataConfig()
    prompts = [Prompt(0, "6*7=", "42"), Prompt(1, "How many?", "3"), Prompt(2, "1+2=", "3")]
    told = unread(policy, prompts, encode(policy, prompts, data, 64))
    assert told.startswith("2 of 3 prompts have characters that the tokenizer does not know, such as + ? H a m")
    assert unread(policy, prompts[:1], encode(policy, prompts[:1], data, 64)) == ""
