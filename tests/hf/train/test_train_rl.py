"""RL jobs as `operant train` runs them: the same prompts, record, resume, evaluation, and settings that are refused."""

import json
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForSequenceClassification
from trl import GRPOConfig, GRPOTrainer, RLOOTrainer

from operant.core.checks import BudgetError, DataError, InputError, OperantError
from operant.core.record import read_records, write_records
from operant.hf.config import TrainConfig
from operant.hf.folder import exact_columns
from operant.hf.rollouts.policy import Policy, embedded_model, embedded_tokenizer, encode
from operant.hf.rollouts.prompts import DataConfig, load_prompts
from operant.hf.rollouts.rewardmodel import RewardModel
from operant.hf.train import rl_job as rl_run
from operant.hf.train import run as train_run
from operant.hf.train.evaluator import exact_metrics, sampled_columns
from operant.hf.train.recorder import Recorder
from operant.hf.train.run import make_jobs
from operant.hf.train.run_job import check_jobs, run_job
from operant.hf.train.settings import checked
from operant.hf.trainers.order import PromptOrder
from operant.strategies import Outcomes
from operant.verify import Prompt

FIRST_DIGIT = r"regex:^(\d)"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first digit of the completion is right or wrong: an untrained model is right one time in ten or so."""
    path = tmp_path_factory.mktemp("data") / "digits.jsonl"
    rows = [{"prompt": f"{i}*{i + 1}=", "target": str(i % 10)} for i in range(10, 60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(train=str(path), holdout=10)


@pytest.fixture
def config(tmp_path, data):
    return TrainConfig(
        output_dir=tmp_path / "run",
        method="grpo",
        data=data,
        strategies=["pass@4"],
        verifier=FIRST_DIGIT,
        warm_steps=0,
        steps=4,
        learning_rate=3e-3,
        num_generations=8,
        per_device_train_batch_size=32,
        max_completion_length=3,
        budgets=[1, 4],
        eval_steps=2,
        logging_steps=1,
        save_steps=2,
        threads=1,
    )


def branches(config):
    """The jobs of a run without its warm start: baseline, then strategies."""
    config = checked(config)
    return config, make_jobs(config)[1:]


def weights(job):
    return load_file(job.folder / "model" / "model.safetensors")


def records(job, kind):
    return [{k: v for k, v in r.items() if k != "time"} for r in read_records(job.record) if r["kind"] == kind]


def test_a_killed_branch_resumes_to_the_same_numbers(config, monkeypatch):
    whole, (_, job) = branches(config)
    run_job(job, whole)
    steps = records(job, "step")
    assert [r["step"] for r in steps] == [1, 2, 3, 4]
    assert list(steps[0])[2] == "strategy" and set(steps[0]["strategy"]) == {"pass@4"}
    for name in ("reward", "dead_groups", "entropy", "weight", "completion_length", "loss", "grad_norm"):
        assert all(r[name] is not None for r in steps)
    assert any(0 < r["strategy"]["pass@4"] < 1 and r["dead_groups"] < 1 for r in steps)
    start = embedded_model(0).state_dict()
    assert any((v != start[k]).any() for k, v in weights(job).items())

    part, (_, killed) = branches(replace(config, output_dir=config.output_dir.with_name("killed")))

    def die(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_step_end", die)
        with pytest.raises(KeyboardInterrupt):
            run_job(killed, part)
    assert not killed.done and [p.name for p in killed.folder.glob("check*")] == ["checkpoint-2"]
    run_job(killed, part)
    assert all(torch.equal(v, weights(killed)[k]) for k, v in weights(job).items())
    assert records(killed, "step") == steps
    assert records(killed, "evaluation")[-1] == records(job, "evaluation")[-1]
    assert (killed.folder / "prompts.jsonl").read_bytes() == (job.folder / "prompts.jsonl").read_bytes()


@pytest.mark.parametrize("method, stock", [("grpo", GRPOTrainer), ("rloo", RLOOTrainer)])
def test_the_baseline_is_the_stock_trainer_with_its_own_defaults(config, method, stock):
    config, (baseline, ours) = branches(replace(config, method=method))
    policy = Policy(embedded_model(0), embedded_tokenizer())
    prompts = load_prompts(config.data)[0]
    args = rl_run.arguments(baseline, config)
    trainer = rl_run.trainer(baseline, config, args, policy, prompts, ())
    assert type(trainer) is stock and baseline.baseline and not ours.baseline
    assert PromptOrder in map(type, trainer.callback_handler.callbacks), "a resumed baseline has the same prompts too"
    theirs = type(args)("unused", use_cpu=True, bf16=False, num_generations=8)
    for name in ("scale_rewards", "loss_type", "normalize_advantages", "epsilon"):
        assert getattr(args, name, None) == getattr(theirs, name, None)
    aligned = rl_run.arguments(ours, config)
    assert isinstance(aligned, type(args)) and aligned.strategy == "pass@4"
    for name in ("seed", "learning_rate", "num_generations", "temperature", "max_steps", "generation_batch_size"):
        assert getattr(args, name) == getattr(aligned, name)


@pytest.mark.parametrize("chat", [False, True])
def test_trl_sees_the_tokens_that_are_evaluated(config, chat):
    """The tokenizer puts a token before every text, and so does the template: one of them must not be repeated."""
    tokenizer = embedded_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="= $A", special_tokens=[("=", tokenizer.convert_tokens_to_ids("="))]
    )
    if chat:
        tokenizer.chat_template = "={% for m in messages %}*{{ m['content'] }}{% endfor %}*"
    policy = Policy(embedded_model(0), tokenizer)
    config, (baseline, _) = branches(replace(config, data=replace(config.data, template="0{prompt}1")))
    prompts = load_prompts(config.data)[0]
    rows = encode(policy, prompts, config.data, 64)
    trainer = rl_run.trainer(baseline, config, rl_run.arguments(baseline, config), policy, prompts, rows)
    seen = trainer._tokenize_prompts(trainer.train_dataset["prompt"][:])[0]
    assert [list(ids) for ids in seen] == [r.prompt for r in rows]
    assert all(r.prompt.count(tokenizer.convert_tokens_to_ids("=")) == 2 for r in rows)


def test_sampled_evaluation_is_the_curve_of_its_rollouts(config):
    """Every strategy of the run is measured at its own budget, which the budgets asked for leave out."""
    reward = torch.tensor([[1.0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.float64)
    answer = torch.tensor([[0, 1, 1, 0, 1, 2], [-1, 0, 0, 0, 0, 1]])
    mixture = "mix(pass@1:0.5, pass@2:0.5)"
    config = replace(config, strategies=["pass@4", "threshold@3:2", mixture], budgets=[1, 64], eval_rollouts=6)
    columns = sampled_columns(config, Outcomes(reward, answer))
    assert {name: (c.family, c.n) for name, c in columns.items()} == {
        "pass@1": ("pass@N", 1),
        "pass@4": ("pass@N", 4),
        "maj@1": ("maj@N", 1),
        "threshold@3:2": ("threshold@N:2", 3),
        mixture: (mixture, 2),
    }
    for row, right in enumerate((2, 1)):
        assert columns["pass@4"].values[row] == pytest.approx(1 - math.comb(6 - right, 4) / math.comb(6, 4))
        two_or_more = math.comb(right, 2) * (6 - right) / math.comb(6, 3)
        assert columns["threshold@3:2"].values[row] == pytest.approx(two_or_more)
        assert columns["maj@1"].values[row] == pytest.approx(right / 6)


def test_exact_evaluation_measures_every_strategy_at_its_own_budget(config):
    """S(p) where it exists; the parts of a mixture in its place; a vote has none."""
    texts = ["pass^4", "threshold@4:2", "mix(pass@1:0.5, pass@3:0.5)", "harmonic(pass@5)", "maj@8"]
    found = exact_metrics(replace(config, strategies=texts, budgets=[1, 2]))
    columns = exact_columns(torch.tensor([0.3], dtype=torch.float64).log(), found)
    assert {name: c.values.item() for name, c in columns.items()} == pytest.approx(
        {
            "pass@1": 0.3,
            "pass@2": 1 - 0.7**2,
            "pass^4": 0.3**4,
            "threshold@4:2": 1 - 0.7**4 - 4 * 0.3 * 0.7**3,
            "pass@3": 1 - 0.7**3,
            "pass@5": 1 - 0.7**5,
        }
    )
    assert (columns["threshold@4:2"].family, columns["threshold@4:2"].n) == ("threshold@N:2", 4)


def test_a_reward_model_scores_and_a_verifier_judges(config, tmp_path):
    """best@4 by a reward model: rewards of the verifier, scores of the model, in training and in evaluation."""
    tokenizer = embedded_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    LlamaForSequenceClassification(LlamaConfig(num_labels=1, **tokens, **sizes)).save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    model = RewardModel(str(tmp_path / "rm"), torch.device("cpu"), batch_size=2)
    asked, said = ["12*13=", "1*", "7"], ["156", "", "22*22="]
    texts = [a + b for a, b in zip(asked, said, strict=True)]
    single = [model.model(**tokenizer(text, return_tensors="pt")).logits.item() for text in texts]
    assert model(asked, said) == pytest.approx(single, abs=1e-5)

    settings = {"steps": 1, "strategies": ["best@4"], "reward_model": str(tmp_path / "rm"), "eval_rollouts": 4}
    config, (_, job) = branches(replace(config, **settings))
    run_job(job, config)
    curve = records(job, "evaluation")[-1]["curve"]
    assert {"pass@1", "pass@4", "maj@4", "best@1", "best@4"} <= set(curve)
    assert curve["best@1"]["value"] == pytest.approx(curve["pass@1"]["value"])
    assert curve["best@4"]["value"] != curve["pass@4"]["value"]
    assert 0 <= records(job, "step")[0]["reward"] <= 1, "the score is no part of the reward"


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"method": "sft", "num_generations": 16}, OperantError, "num_generations is a setting of grpo and rloo"),
        ({"level": "answer"}, OperantError, "level is a setting of sft, but method is grpo"),
        ({"strategies": ["pass@16"]}, BudgetError, "at least 16 rollouts"),
        ({"form": "paper"}, InputError, "form must be one of exact"),
        ({"verifier": ""}, OperantError, "no reward is defined"),
        ({"verifier": "", "reward_model": "rm"}, OperantError, "counts successes, but a reward model gives scores"),
        ({"eval_rollouts": 2}, BudgetError, "eval_rollouts is 2"),
        ({"strategy_schedule": {"late": "pass@2"}}, OperantError, "got the step 'late'"),
        ({"strategy_schedule": {"plateau": "pass@2"}, "steps": 9}, OperantError, "holds 2 batches of completions"),
        ({"strategy_schedule": {"plateau": "maj@16"}}, BudgetError, "maj@16 needs groups of at least 16 rollouts"),
        ({"plateau_window": 0.1}, OperantError, "plateau_window=0.1 needs a plateau"),
        ({"report_to": "mlflow"}, OperantError, "report_to takes trackio, tensorboard, wandb, none"),
        ({"report_to": ["none", "trackio"]}, OperantError, "pip install trackio"),
        ({"use_vllm": True, "model": "somewhere"}, OperantError, "needs the package vllm"),
        ({"beta": 0.1}, OperantError, "has no folder"),
        ({"trainer": {"episilon": 0.1}}, OperantError, "no field 'episilon'. Did you mean epsilon"),
        (
            {"trainer": {"learning_rate": 0.1}},
            OperantError,
            "Set --learning_rate directly",
        ),
        ({"num_generations": 7}, OperantError, "TRL rejects the settings of grpo: generation_batch_size"),
        (
            {"num_iterations": 3},
            OperantError,
            "save_steps must be a multiple of the optimizer steps",
        ),
        ({"trainer": {"scale_rewards": "group"}}, OperantError, "scale_rewards must be 'none'"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(config, settings, error, message):
    with pytest.raises(error, match=message):
        config, jobs = branches(replace(config, **{"num_generations": 8, **settings}))
        check_jobs(jobs, config)


def test_too_few_prompts_for_a_batch_are_refused(config):
    config, (job, _) = branches(replace(config, per_device_train_batch_size=800))
    with pytest.raises(DataError, match="needs 100 prompts"):
        run_job(job, config)


def test_defaults_follow_the_method():
    sft, grpo = (checked(TrainConfig(method=m, model=model)) for m, model in (("sft", "embedded"), ("grpo", "a/model")))
    assert (sft.learning_rate, sft.per_device_train_batch_size, sft.warm_steps) == (1e-4, 8, 0)
    assert (grpo.learning_rate, grpo.num_generations, grpo.gradient_accumulation_steps) == (1e-6, 32, 32)
    embedded = checked(TrainConfig(method="rloo", steps=7, learning_rate=0.5))
    assert embedded.warm_steps == 600 and embedded.steps == 7 and embedded.learning_rate == 0.5
    assert GRPOConfig.__dataclass_fields__["learning_rate"].default == grpo.learning_rate


@pytest.mark.parametrize(("size", "m", "passes"), [(8, 32, 32), (64, 16, 2), (12, 32, 24), (48, 16, 3), (512, 16, 1)])
def test_a_step_has_eight_prompts_or_a_few_more_whatever_a_forward_pass_holds(size, m, passes):
    settings = {"per_device_train_batch_size": size, "num_generations": m}
    filled = checked(TrainConfig(method="grpo", model="a/model", **settings))
    assert filled.gradient_accumulation_steps == passes and size * passes % m == 0
    assert size * passes / m >= 8 and (passes == 1 or size * passes / m < 10)


def test_a_prompt_without_an_answer_needs_a_sampled_evaluation(config, monkeypatch):
    bare = [Prompt(0, "1*1=", "")]
    monkeypatch.setattr("operant.hf.train.settings.load_prompts", lambda data: (bare, bare))
    with pytest.raises(DataError, match="held-out prompts have no answer.*set eval_rollouts"):
        checked(config)
    checked(replace(config, eval_rollouts=4))
    with pytest.raises(DataError, match="training prompts have no answer"):
        checked(replace(config, eval_rollouts=4, warm_steps=1))


def test_a_vote_is_warned_of_before_the_first_step_and_once_more_when_the_start_is_known(config, monkeypatch, capsys):
    class Started(Exception):
        pass

    def stop(*_, **__):
        raise Started

    monkeypatch.setattr(train_run, "worker_pool", stop)
    for strategies, warned in ((["maj@4"], True), (["pass@4"], False)):
        folder = config.output_dir.parent / strategies[0]
        asked = replace(config, strategies=strategies, output_dir=folder)
        with pytest.raises(Started):
            train_run.run_training(asked)
        told = capsys.readouterr().out
        assert ("Training for maj@4 is known to lose from starts of 5 to 60 % right answers: its" in told) == warned
        assert f"note: there is no data.test: 10 prompts of {config.data.train} (data.holdout) are held out." in told
        assert "note: a step takes 4 prompts with 8 completions each, in forward passes of 32 completions." in told
        job = make_jobs(asked)[0]
        write_records(job.record, [{"kind": "evaluation", "step": 0, "curve": {"pass@1": {"value": 0.125}}}])
        (job.folder / "prompts.jsonl").write_text("")
        train_run._advise_after(job, asked, Console())
        told = capsys.readouterr().out
        assert ("is known to lose from a start like this one (12.5 % right answers)" in told) == warned
        assert warned or not told
        train_run._advise_after(replace(job, seed=5), asked, Console())
        assert not capsys.readouterr().out
