"""Models that declare several end tokens, and conversations: one stop, one text, one probability everywhere."""

import json
import math
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from operant.core.checks import DataError, OperantError
from operant.core.record import read_records
from operant.hf.config import EvaluateConfig, TrainConfig
from operant.hf.rollouts.chat import end_of_turn
from operant.hf.rollouts.collect import SuccessRate
from operant.hf.rollouts.evaluate import evaluate
from operant.hf.rollouts.logprobs import answer_log_probs, target_log_probs
from operant.hf.rollouts.policy import (
    Encoded,
    Policy,
    add_lora,
    dataset,
    embedded_model,
    embedded_tokenizer,
    encode,
    load_policy,
)
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.rollouts.sampling import RolloutSettings, sample, trim
from operant.hf.train import rl_job as rl_run
from operant.hf.train.evaluator import Evaluator
from operant.hf.train.run import make_jobs
from operant.hf.train.settings import checked
from operant.hf.trainers.rl import AlignedGRPOConfig, AlignedGRPOTrainer
from operant.strategies import Sampler
from operant.verify import Prompt, make_verifier

EOS, END = 1, 15
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}*{% endif %}{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}={% endif %}"
)


def chat_policy(ends=(EOS, END), template=TEMPLATE):
    """The embedded model with a token <|end|> (15) that ends a turn; it stops often, at either end."""
    tokenizer = embedded_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = template
    model = embedded_model(3)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(model.lm_head.weight.shape, generator=generator) / 6
    head[END] = head[EOS]
    model.lm_head.weight = torch.nn.Parameter(head)
    model.config.tie_word_embeddings = False
    model.generation_config.eos_token_id = list(ends)
    return Policy(model, tokenizer)


@pytest.fixture
def chatty():
    return chat_policy()


@pytest.mark.parametrize(
    "declared, ends", [([2, EOS], (EOS, 2)), ([END], (EOS, END)), (END, (EOS, END)), (EOS, (EOS,)), (None, (EOS,))]
)
def test_the_ends_are_those_of_trl(tmp_path, chatty, declared, ends):
    """The tokenizer's and every declared one, for a model, an adapter, and what was saved and loaded."""
    chatty.model.generation_config.eos_token_id = declared
    policy = Policy(chatty.model, chatty.tokenizer)
    assert policy.ends == ends and add_lora(policy, rank=2, alpha=2, seed=0).ends == ends
    args = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    data = Dataset.from_dict({"prompt": ["1"]})
    trl = GRPOTrainer(
        policy.model, [lambda **_: [0.0]], args=args, train_dataset=data, processing_class=policy.tokenizer
    )
    assert set(trl.eos_token_ids) == set(ends)


@pytest.mark.parametrize("declared", [[[]], 1e308, ["</s>"], True, {"a": 1}])
def test_end_tokens_of_another_type_are_refused(chatty, declared):
    chatty.model.generation_config.eos_token_id = declared
    with pytest.raises(DataError, match="eos_token_id of the model's generation_config must be a token id"):
        Policy(chatty.model, chatty.tokenizer)


def test_ends_survive_saving(tmp_path, chatty):
    chatty.save(tmp_path / "model")
    assert load_policy(str(tmp_path / "model"), device="cpu").ends == (EOS, END)


def enumerated(policy, prompt, length, sampler):
    """Probability of every answer (tokens before the end) of at most ``length`` tokens, token by token."""
    found, open_ = {}, {(): 1.0}
    for _ in range(length + 1):
        grown = {}
        for tokens, p in open_.items():
            logits = policy.model(torch.tensor([prompt + list(tokens)])).logits[0, -1]
            for token, q in enumerate(sampler.log_probs(logits.float()).exp().tolist()):
                if token in (EOS, END):
                    found[tokens] = found.get(tokens, 0.0) + p * q
                elif q:
                    grown[(*tokens, token)] = p * q
        open_ = grown
    return found


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(1.2, 0.9)])
def test_the_probability_of_an_answer_sums_over_its_ends(chatty, sampler):
    prompt = [4, 5, 13, 6]
    with torch.no_grad():
        slow = enumerated(chatty, prompt, 1, sampler)
    rows = [Encoded(prompt, [*tokens, end]) for tokens in slow for end in (EOS, END)]
    fast = answer_log_probs(chatty, rows, batch_size=5, sampler=sampler).exp().tolist()
    assert fast[::2] == pytest.approx(fast[1::2])
    assert fast[::2] == pytest.approx(list(slow.values()), rel=1e-4) and sum(fast) > 0.05
    alone = replace(chatty, ends=(EOS,))
    less = answer_log_probs(alone, rows[::2], batch_size=5, sampler=sampler).exp().tolist()
    assert sum(less) < 0.6 * sum(fast[::2])
    open_ended = [Encoded(prompt, [5, 6])]  # a target that no end closes is no sum
    assert answer_log_probs(chatty, open_ended, batch_size=1) == answer_log_probs(alone, open_ended, batch_size=1)


def test_rows_of_different_lengths_each_sum_at_their_own_end(chatty):
    rows = [Encoded([4, 5], [6, EOS]), Encoded([4], [9, 10, 11, END]), Encoded([4, 5, 6, 7], [EOS]), Encoded([4], [8])]
    alone = [answer_log_probs(chatty, [row], batch_size=1).item() for row in rows]
    assert answer_log_probs(chatty, rows, batch_size=4).tolist() == pytest.approx(alone, abs=1e-5)


def test_gradients_pass_through_the_sum(chatty):
    batch = dict(input_ids=torch.tensor([[4, 5, 6, 1]]), attention_mask=None, labels=torch.tensor([[-100, -100, 6, 1]]))
    target_log_probs(chatty.model, **batch, ends=(EOS, END)).sum().backward()
    assert chatty.model.lm_head.weight.grad.isfinite().all()


def test_rollouts_stop_at_every_end_and_have_one_text(chatty):
    """Frequencies of the texts agree with the exact probabilities of the answers; nothing follows an end."""
    prompt, n = [4, 5, 13, 6], 2000
    settings = RolloutSettings(rollouts=n, max_new_tokens=3, batch_size=1, seed=1)
    (drawn,) = sample(chatty, [Encoded(prompt, [])], settings)
    assert all(t not in (EOS, END) for tokens in drawn for t in tokens[:-1])
    stops = [tokens[-1] for tokens in drawn if chatty.finished(tokens)]
    assert {EOS, END} == set(stops) and min(stops.count(EOS), stops.count(END)) > n / 40
    with torch.no_grad():
        exact = enumerated(chatty, prompt, 1, Sampler())
    for tokens, p in exact.items():
        count = sum(d[:-1] == list(tokens) and chatty.finished(d) for d in drawn)
        assert abs(count / n - p) <= 4 * math.sqrt(p * (1 - p) / n) + 1 / n
    want = chatty.tokenizer.batch_decode(drawn, skip_special_tokens=True)
    assert [chatty.text(tokens) for tokens in drawn] == want and not any("<" in text for text in want)


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def conversations(path, count=6):
    rows = [
        {
            "prompt": [{"role": "system", "content": "1"}, {"role": "user", "content": f"{i}"}],
            "reward_model": {"ground_truth": i},
        }
        for i in range(count)
    ]
    return write(path, rows)


def test_the_same_rollout_gets_one_text_and_one_reward(tmp_path, chatty):
    """Evaluate, the measured success rate and TRL's own decoding, on the same tokens."""
    chatty.save(tmp_path / "model")
    data = DataConfig(train=conversations(tmp_path / "a.jsonl"), target="reward_model.ground_truth", holdout=3)
    config = EvaluateConfig(
        tmp_path / "e",
        str(tmp_path / "model"),
        data=data,
        rollouts=40,
        max_new_tokens=2,
        verifier="exact",
        batch_size=3,
    )
    folder = evaluate(config)
    rows = read_records(folder / "rollouts.jsonl")
    policy = load_policy(str(tmp_path / "model"), device="cpu")
    prompts = load_prompts(data)[1]
    encoded = encode(policy, prompts, data, 64)
    settings = RolloutSettings(rollouts=40, max_new_tokens=2, batch_size=3)
    drawn = [t for chunk in sample(policy, encoded, settings) for t in chunk]
    assert [r["completion"] for r in rows] == policy.tokenizer.batch_decode(drawn, skip_special_tokens=True)
    assert [r["finished"] for r in rows] == [t[-1] in (EOS, END) for t in drawn]
    assert {t[-1] for t in drawn} >= {EOS, END}

    seen = []
    with make_verifier("exact") as check:

        def spy(prompts, texts):
            seen.extend(texts)
            return check(prompts, texts)

        rate = SuccessRate(policy, prompts, encoded, spy, settings, fresh=False)()
    assert not any("<" in text for text in seen)
    exact = answer_log_probs(policy, encoded, batch_size=4).exp()
    values = [r["values"]["exact pass@1"] for r in read_records(folder / "prompts.jsonl")]
    assert values == pytest.approx(exact.tolist())
    assert ((rate - exact).abs() <= 4 * (exact * (1 - exact) / 40).sqrt() + 0.05).all()


def test_a_trl_that_knows_one_end_only_is_refused(tmp_path, chatty, monkeypatch):
    config = checked(TrainConfig(tmp_path / "run", method="grpo", model="somewhere", num_generations=32))
    prompts = [Prompt(i, str(i), "3") for i in range(8)]
    job = make_jobs(config)[1]
    args = rl_run.arguments(job, config)
    init = GRPOTrainer.__init__

    def older(self, *args, **kwargs):
        init(self, *args, **kwargs)
        del self.eos_token_ids

    monkeypatch.setattr(GRPOTrainer, "__init__", older)
    with pytest.raises(
        OperantError, match=r"any of the tokens \[1, 15\], but TRL .* stops at one of them only.* Install trl 1.16"
    ):
        rl_run.trainer(job, config, args, chatty, prompts, [])
    rl_run.trainer(job, config, args, replace(chatty, ends=(EOS,)), prompts, [])


@pytest.mark.parametrize(
    "after, ends, end",
    [
        ("<|end|>", (EOS, END), END),
        (" <|end|>\n", (EOS, END), END),  # Llama 2 and gemma write white space around it
        ("<eos>", (EOS, END), EOS),
        ("<|end|>", (EOS,), EOS),  # generation does not stop there: a base model with a template
        ("", (EOS, END), EOS),
    ],
)
def test_a_target_ends_as_the_chat_template_ends_a_turn(after, ends, end):
    policy = chat_policy(ends, "{% for m in messages %}{{ m['content'] }}" + after + "{% endfor %}")
    assert end_of_turn(policy.tokenizer, policy.ends) == end
    prompt = Prompt(0, "2", "34", history=(("system", "1"),))
    assert encode(policy, [prompt], DataConfig(), 64)[0].target == [6, 7, end]
    assert encode(policy, [replace(prompt, history=())], DataConfig(chat=False), 64)[0].target == [6, 7, EOS]


def test_a_conversation_reaches_the_model_with_all_its_turns(chatty):
    turns = (("system", "1"), ("user", "2"), ("assistant", "3"))
    (row,) = encode(chatty, [Prompt(0, "4", "5", history=turns)], DataConfig(), 64)
    assert chatty.tokenizer.decode(row.prompt) == "*1<|end|>2<|end|>3<|end|>4<|end|>="
    for chat in (False, None):
        bare = chatty if chat is False else chat_policy(template=None)
        with pytest.raises(DataError, match="is a conversation .system, user, assistant, user., which only a chat"):
            encode(bare, [Prompt(0, "4", "5", history=turns)], DataConfig(chat=chat), 64)


def test_a_chat_template_that_knows_no_system_prompt_says_so():
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    policy = chat_policy(template=refuse + TEMPLATE)
    encode(policy, [Prompt(0, "4", "5")], DataConfig(), 64)
    with pytest.raises(DataError, match="refuses a conversation of system, user: System role not supported. Take out"):
        encode(policy, [Prompt(0, "4", "5", history=(("system", "1"),))], DataConfig(), 64)


@pytest.mark.parametrize("stock", [True, False])
def test_rollouts_of_rl_end_at_every_declared_token(tmp_path, chatty, stock):
    """Neither masked nor counted as cut at the second end, and verified by the text that evaluation gives it."""
    seen = []

    def reward(prompts, completions, completion_ids, **_):
        seen.extend((c[0]["content"], ids) for c, ids in zip(completions, completion_ids, strict=True))
        return [float("3" in c[0]["content"]) for c in completions]

    config, cls = (GRPOConfig, GRPOTrainer) if stock else (AlignedGRPOConfig, AlignedGRPOTrainer)
    args = config(
        str(tmp_path),
        **({} if stock else {"strategy": "pass@4"}),
        max_completion_length=4,
        max_steps=1,
        per_device_train_batch_size=64,
        num_generations=32,
        mask_truncated_completions=True,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    prompts = [Prompt(i, str(i), "3", history=(("system", "1"),)) for i in range(4)]
    data = dataset(chatty, prompts, DataConfig())
    tokenizer = chatty.tokenizer
    trainer = cls(model=chatty.model, reward_funcs=[reward], args=args, train_dataset=data, processing_class=tokenizer)
    tokens = [row.prompt for row in encode(chatty, prompts, DataConfig(), 64)]
    assert [list(ids) for ids in trainer._tokenize_prompts(data["prompt"][:])[0]] == tokens
    batch = {}
    prepare = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: batch.setdefault("out", prepare(inputs))
    trainer.train()
    cut = [ids[-1] not in (*chatty.ends, chatty.pad) for _, ids in seen]  # TRL takes a trailing pad for an end
    assert {ids[-1] for _, ids in seen} > {EOS, END} and any(cut)
    assert all(text == chatty.text(ids) and len(trim(ids, chatty.ends)) == len(ids) for text, ids in seen)
    (log,) = [x for x in trainer.state.log_history if "completions/clipped_ratio" in x]
    assert log["completions/clipped_ratio"] == pytest.approx(sum(cut) / len(cut))
    lengths = sorted(0 if c else len(ids) for c, (_, ids) in zip(cut, seen, strict=True))
    assert sorted(batch["out"]["completion_mask"].sum(-1).tolist()) == lengths


@pytest.mark.parametrize("chat", [True, False])
def test_a_reward_model_sees_what_the_model_was_asked(tmp_path, chatty, monkeypatch, chat):
    """The whole conversation, in evaluate and in the evaluation of a training job; without a template, the text."""
    seen = []

    class Scorer:
        def __init__(self, name, device):
            pass

        def __call__(self, prompts, completions):
            seen.append((list(prompts), list(completions)))
            return [float(len(str(c))) for c in completions]

    monkeypatch.setattr("operant.hf.rollouts.rewardmodel.RewardModel", Scorer)
    policy = chatty if chat else chat_policy(template=None)
    policy.save(tmp_path / "model")
    path = conversations(tmp_path / "a.jsonl")
    prompt = "prompt" if chat else "prompt.1.content"
    data = DataConfig(path, prompt=prompt, target="reward_model.ground_truth", template="{prompt}+", holdout=2)
    config = EvaluateConfig(tmp_path / "e", str(tmp_path / "model"), data=data, rollouts=2, max_new_tokens=3)
    rows = read_records(evaluate(replace(config, reward_model="rm", verifier="exact")) / "rollouts.jsonl")
    prompts = load_prompts(data)[1]
    train = TrainConfig(tmp_path / "t", data=data, reward_model="rm", verifier="exact", eval_rollouts=2, budgets=[1])
    train = replace(train, max_completion_length=3)
    Evaluator(train, policy, prompts, encode(policy, prompts, data, 64))()
    want = []
    for p in prompts:
        turns = [{"role": "system", "content": "1"}, {"role": "user", "content": f"{p.target}+"}]
        want += [turns if chat else f"{p.target}+"] * 2
    (evaluated, said), (examined, _) = seen
    assert evaluated == examined == want
    texts = [r["completion"] for r in rows]
    assert said == ([[{"role": "assistant", "content": t}] for t in texts] if chat else texts)


def test_rows_of_a_data_set_are_read_as_those_of_a_file(tmp_path):
    """A folder that the datasets library loads, as it loads one of the Hub."""
    path = conversations(tmp_path / "a.jsonl")
    (tmp_path / "set").mkdir()
    rows = read_records(tmp_path / "a.jsonl")
    Dataset.from_list(rows).to_parquet(tmp_path / "set" / "train.parquet")
    settings = dict(target="reward_model.ground_truth", holdout=2)
    assert load_prompts(DataConfig(str(tmp_path / "set"), **settings)) == load_prompts(DataConfig(path, **settings))
