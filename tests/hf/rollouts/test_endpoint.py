"""Rollouts from a server: one of our own with every bad habit, and ``transformers serve``."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import openai
import pytest

import operant.cli
import operant.hf.workers
from operant.core.record import read_records
from operant.hf.config import EvaluateConfig
from operant.hf.rollouts.endpoint import client
from operant.hf.rollouts.endpoint.client import EndpointError
from operant.hf.rollouts.evaluate import evaluate
from operant.hf.rollouts.plan import make_plan
from operant.hf.rollouts.policy import load_policy
from operant.hf.rollouts.prompts import DataConfig
from operant.hf.rollouts.rows import outcomes_of
from tests import inline

DATA = DataConfig(test_limit=5)


class Stub:
    """A server; ``answer(path, body)`` returns a status and a text, or bytes, or None to hang up."""

    def __init__(self):
        self.asked, self.random, self.lock = [], random.Random(0), threading.Lock()
        self.answer = self.completions
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.reply(200, json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]}))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub.lock:
                    stub.asked.append((self.path, body, self.headers.get("Authorization")))
                found = stub.answer(self.path, body)
                if found is None:
                    self.close_connection = True
                else:
                    self.reply(*found)

            def reply(self, status, text):
                data = text if isinstance(text, bytes) else text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # a client that hangs up
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def completions(self, path, body, *, n=None, log_probs=True):
        """As OpenAI's: ``n`` choices, and log-probabilities if they are asked for."""
        choices = []
        for _ in range(n or body.get("n", 1)):
            with self.lock:
                text = str(self.random.randint(100, 999))
            given = None
            if body.get("logprobs") and log_probs:
                given = {"content": [{"token": c, "logprob": -0.5} for c in text]}
                given = given if "messages" in body else {"token_logprobs": [-0.5] * 3, "tokens": list(text)}
            said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
            choices.append({**said, "finish_reason": "stop", "logprobs": given})
        usage = {"prompt_tokens": 5, "completion_tokens": 3 * len(choices), "total_tokens": 9}
        return 200, json.dumps({"id": "x", "object": "any", "choices": choices, "usage": usage})

    @property
    def real(self):
        """The requests that were more than a probe."""
        return [body for _, body, _ in self.asked if body.get("max_tokens", 1) > 1]


def refused(what):
    return 400, json.dumps({"error": {"message": f"{what} is not supported", "type": "invalid_request_error"}})


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr(client, "_PAUSE", 0.001)
    found = Stub()
    yield found
    found.server.shutdown()
    found.server.server_close()


def config(stub, folder, **settings):
    common = dict(model="tiny", rollouts=8, max_new_tokens=6, verifier="exact", data=DATA, retries=3)
    return EvaluateConfig(output_dir=folder, endpoint=stub.url, **(common | settings))


def rows_of(folder):
    return read_records(folder / "rollouts.jsonl")


def whole(folder, count=8):
    """The rows, once each prompt has as many as it should."""
    rows = rows_of(folder)
    assert set(Counter(r["prompt"] for r in rows).values()) == {count} and len(rows) == 5 * count
    assert [r["kind"] for r in read_records(folder / "record.jsonl")].count("done") == 1
    assert not (folder / "sampling.jsonl").exists()
    return rows


def test_a_server_with_everything(stub, tmp_path, monkeypatch):
    """One request a prompt, the stated sampler, and a file that plan reads."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    settings = dict(temperature=0.7, top_p=0.9, families=["pass", "maj"])
    folder = evaluate(config(stub, tmp_path / "a", **settings))
    rows = whole(folder)
    assert {(r["tokens"], r["finished"], r["stop"], r["log_p"]) for r in rows} == {(3, True, "stop", -1.5)}
    assert len({r["completion"] for r in rows}) > 20 and not any(r["reward"] for r in rows)
    assert len(stub.real) == 5 and {auth for _, _, auth in stub.asked} == {"Bearer secret"}
    for body in stub.real:
        assert body["n"] == 8 and body["max_tokens"] == 6 and body["logprobs"] is True and body["model"] == "tiny"
        assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.7, 0.9, -1, 0)
        assert [m["role"] for m in body["messages"]] == ["user"] and "*" in body["messages"][0]["content"]
    assert [r["kind"] for r in read_records(folder / "record.jsonl")].count("warning") == 0
    assert [r["prompt"] for r in rows[::8]] == [r["prompt"] for r in read_records(folder / "prompts.jsonl")]
    ids, outcomes = outcomes_of(rows)
    records, _ = make_plan(ids, outcomes, budgets=[1, 4])
    assert any(r["kind"] == "recommendation" for r in records), [r["kind"] for r in records]


def test_texts_are_continued_where_there_is_no_chat(stub, tmp_path):
    folder = evaluate(config(stub, tmp_path / "a", data=DataConfig(test_limit=5, chat=False)))
    assert {r["log_p"] for r in whole(folder)} == {-1.5}
    assert {path for path, _, _ in stub.asked} == {"/v1/completions"}
    assert all(body["prompt"].endswith("=") and body["logprobs"] == 1 for body in stub.real)


@pytest.mark.parametrize(
    ("most", "habit", "requests"), [(1, "refuses", 40), (1, "ignores", 40), (3, "refuses", 20)], ids=str
)
def test_a_server_without_n_or_with_a_largest_one(stub, tmp_path, capsys, most, habit, requests):
    def answer(path, body):
        n = body.get("n", 1)
        if n > most and habit == "refuses":
            return refused("n")
        return stub.completions(path, body, n=min(n, most))

    stub.answer = answer
    if most == 3:  # eight are refused, four are, two are not: the first to ask find out for all
        folder = evaluate(config(stub, tmp_path / "a", concurrency=1))
        assert len(stub.real) == requests + 2
    else:
        folder = evaluate(config(stub, tmp_path / "a"))
        assert f"the server {habit} n: each completion is a request of its own." in capsys.readouterr().out
        assert len(stub.real) == requests
    whole(folder)


def test_what_a_server_answers_too_much_or_too_little_is_asked_again(stub, tmp_path):
    """It takes n of two and gives five at most."""
    stub.answer = lambda path, body: stub.completions(path, body, n=min(body.get("n", 1), 5))
    whole(evaluate(config(stub, tmp_path / "a")))
    assert Counter(body.get("n", 1) for body in stub.real) == {8: 5, 3: 5}


def test_failures_that_pass_are_asked_again(stub, tmp_path):
    """Too many requests, a server that starts, no answer, cut JSON, HTML, no choices: each once in a while."""
    habits = [(429, "{}"), (503, "{}"), None, (200, '{"choices": [{"mess'), (200, "<html>"), (200, '{"choices": []}')]
    left = habits * 2

    def answer(path, body):
        with stub.lock:
            bad = left.pop() if left and len(stub.asked) % 2 else False
        return stub.completions(path, body, n=1) if bad is False else bad

    stub.answer = answer
    whole(evaluate(config(stub, tmp_path / "a", retries=6, concurrency=2)))
    assert not left and len(stub.real) > 40


def test_a_server_that_does_not_answer_is_given_up_after_the_retries(stub, tmp_path):
    slow = threading.Event()

    def answer(path, body):
        if len(stub.asked) > 6:
            slow.wait(5)
        return stub.completions(path, body)

    stub.answer = answer
    with pytest.raises(EndpointError, match=r"did not answer within 0.2 s, 2 times. Raise timeout"):
        evaluate(config(stub, tmp_path / "a", timeout=0.2, retries=1, concurrency=1))
    slow.set()
    assert 0 < len(stub.real) <= 5


@pytest.mark.parametrize("n", [True, False])
def test_a_server_that_dies_loses_nothing(stub, tmp_path, n):
    """What it answered is kept; the rest, and no more, is asked when it is back, at another address and pace."""
    other = Stub()

    def dying(path, body):
        real = body["max_tokens"] > 1
        return (500, "{}") if real and len(stub.real) > 3 else stub.completions(path, body, n=None if n else 1)

    stub.answer = dying
    settings = dict(concurrency=1, retries=0)
    with pytest.raises(EndpointError, match=r"(24|3) of 40 rollouts are kept: continue with --resume true\."):
        evaluate(config(stub, tmp_path / "a", **settings))
    kept = [row for r in read_records(tmp_path / "a" / "sampling.jsonl") for row in r["rows"]]
    other.answer = lambda path, body: other.completions(path, body, n=None if n else 1)
    folder = evaluate(config(other, tmp_path / "a", concurrency=4, retries=2, resume=True))
    rows = whole(folder)
    assert [r["completion"] for r in rows[: len(kept)]] == [r["completion"] for r in kept]
    assert sum(body.get("n", 1) for body in other.real) == 40 - len(kept)
    again = len(other.asked)
    evaluate(config(other, tmp_path / "a", resume=True))  # finished
    assert len(other.asked) == again
    other.server.shutdown()
    other.server.server_close()


def test_the_models_own_sampling_is_set_aside_as_the_server_takes_it(stub, tmp_path):
    def strict(path, body):
        unknown = {"top_k", "min_p"} & body.keys()
        return refused(unknown) if unknown else stub.completions(path, body)

    stub.answer = strict
    whole(evaluate(config(stub, tmp_path / "a", temperature=0.5)))
    sent = json.loads(stub.real[0]["generation_config"])
    assert sent == {"do_sample": True, "temperature": 0.5, "top_p": 1.0, "top_k": 0, "max_new_tokens": 6}
    stub.answer = lambda path, body: refused("x") if "generation_config" in body else strict(path, body)
    folder = evaluate(config(stub, tmp_path / "b"))
    (warned,) = [r["text"] for r in read_records(folder / "record.jsonl") if r["kind"] == "warning"]
    assert "takes no top_k, min_p or repetition_penalty" in warned


def test_completions_that_are_all_equal_are_doubted(stub, tmp_path):
    stub.random.randint = lambda a, b: 7
    folder = evaluate(config(stub, tmp_path / "a"))
    (warned,) = [r["text"] for r in read_records(folder / "record.jsonl") if r["kind"] == "warning"]
    assert "the 8 completions of each prompt are equal" in warned and "ignores the temperature" in warned


def test_a_limit_under_its_new_name_and_thoughts_without_an_answer(stub, tmp_path):
    """OpenAI's newer models refuse max_tokens; a model that thinks past its limit says nothing."""

    def answer(path, body):
        if "max_tokens" in body:
            return refused("max_tokens")
        found = json.loads(stub.completions(path, body)[1])
        found["choices"][0] |= {"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}
        return 200, json.dumps(found)

    stub.answer = answer
    rows = whole(evaluate(config(stub, tmp_path / "a")))
    assert stub.asked[-1][1]["max_completion_tokens"] == 6
    assert [(r["completion"], r["finished"], r["reward"]) for r in rows[::8]] == [("", False, 0)] * 5


NOT_FOUND = (404, json.dumps({"error": {"message": "The model does not exist"}}))


@pytest.mark.parametrize(
    ("answer", "settings", "said"),
    [
        (NOT_FOUND, {"model": "huge"}, "does not serve the model 'huge'; it offers tiny. Set model to one of them"),
        (NOT_FOUND, {}, "Check the address, which ends in /v1"),
        ((401, "{}"), {}, "Set the environment variable OPENAI_API_KEY"),
        (refused("the conversation"), {}, "A model without a chat template needs data.chat false"),
        ((200, "<html>"), {}, "answered with something else than completions: '<html>'"),
        ((500, "{}"), {}, "failed 4 times"),
        (None, {"endpoint": "http://127.0.0.1:9/v1"}, "no server answers at http://127.0.0.1:9/v1"),
        (None, {"endpoint": "localhost:8000"}, "endpoint must be an address such as http://localhost:8000/v1"),
        (None, {"timeout": 0}, "timeout must be above 0 seconds"),
        (None, {"retries": -1}, "retries must be an integer >= 0"),
        (None, {"concurrency": 0}, "concurrency must be an integer >= 1"),
        (None, {"model": "embedded"}, "set model to the name by which the server"),
        (None, {"rollouts_file": "a.jsonl"}, "leave one of them out"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(stub, tmp_path, monkeypatch, answer, settings, said):
    monkeypatch.setattr(operant.hf.workers, "worker_pool", inline.worker_pool)
    stub.answer = lambda path, body: answer
    args = {"endpoint": stub.url, "model": "tiny", "retries": 3, "data.test_limit": 5, "verifier": "exact"} | settings
    run = inline.run("evaluate", *(f"--{k}={v}" for k, v in args.items()), f"--output_dir={tmp_path / 'a'}")
    assert run.returncode == 2 and said in run.stderr and run.stderr.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_the_command_shows_its_progress(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(operant.hf.workers, "worker_pool", inline.worker_pool)
    monkeypatch.setattr(operant.cli, "_report", lambda *_, **__: None)
    args = ["--model=tiny", "--rollouts=4", "--data.test_limit=3", "--verifier=exact", f"--output_dir={tmp_path / 'a'}"]
    run = inline.run("evaluate", f"--endpoint={stub.url}", *args)
    assert run.returncode == 0 and "12/12" in run.stdout and "rollouts/s" in run.stdout, run.stderr
    assert len(rows_of(tmp_path / "a")) == 12


def test_the_client_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, client.__name__)
    with pytest.raises(ImportError, match=r"pip install 'operant\[endpoint\]'"):
        __import__(client.__name__)


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """``transformers serve`` with the embedded model: its address and the model's name, which is its folder."""
    folder = tmp_path_factory.mktemp("serve")
    policy = load_policy("embedded", seed=3, device="cpu")
    policy.model.save_pretrained(folder / "model")
    policy.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    policy.tokenizer.save_pretrained(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", f"--port={port}", "--host=127.0.0.1", "--device=cpu"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    deadline = time.monotonic() + 240
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}/v1", folder / "model"
    process.terminate()
    process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_transformers_serve_samples_what_the_model_samples(serving, tmp_path, chat):
    """One prompt asked 300 times there and 4,000 times here: the first characters have the same distribution."""
    url, model = serving
    common = dict(model=str(model), max_new_tokens=1, temperature=1.5, verifier="exact", families=["pass"])
    data = DataConfig(test_limit=1, chat=chat)
    there = evaluate(EvaluateConfig(tmp_path / "a", endpoint=url, rollouts=300, data=data, concurrency=8, **common))
    here = evaluate(EvaluateConfig(tmp_path / "b", rollouts=4000, data=data, exact=False, **common))
    counts = [Counter(r["completion"] for r in rows_of(folder)) for folder in (there, here)]
    assert len(counts[0]) > 5
    for text in counts[1] | counts[0]:
        p, q = counts[0][text] / 300, counts[1][text] / 4000
        assert abs(p - q) < 4.5 * (q * (1 - q) * (1 / 300 + 1 / 4000) + 1e-4) ** 0.5, text
    assert {(r["tokens"], r["stop"]) for r in rows_of(there)} == {(1, "length")}


@pytest.mark.slow
def test_a_model_that_transformers_serve_does_not_have(serving, tmp_path):
    with pytest.raises(EndpointError, match="failed 1 times|offers|refuses the request|which answered"):
        evaluate(EvaluateConfig(tmp_path / "b", endpoint=serving[0], model="no/such-model", retries=0))
    assert not (tmp_path / "b").exists()
