"""Without extras, each verb prints one line that names them."""

import os
import subprocess
import sys
from pathlib import Path

from operant.cli.front import VERBS
from operant.core.extras import EXTRAS

SOURCE = Path(__file__).parents[2] / "src"
BLOCK = """
import sys
class Blocked:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked)
from operant.cli import main
for words in {commands}:
    print("RESULT", main(words), flush=True)
"""
EXTRA = {verb: "report" for verb in ("plan", "audit", "extrapolate", "report")}
NEEDED = {"plan": ["r.jsonl"], "extrapolate": ["bank.csv"], "report": ["folder"]}


def ran(folder, blocked, commands):
    """(exit code, lines on stderr) of each command, in one process that lacks the modules."""
    code = BLOCK.format(names=set(blocked), commands=commands)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, text=True, stdout=-1, stderr=-2, timeout=120
    )
    assert done.returncode == 0, done.stdout[-3000:]
    parts = done.stdout.split("RESULT ")
    heads = [parts[0], *(part.partition("\n")[2] for part in parts[1:-1])]
    codes = [int(part.partition("\n")[0]) for part in parts[1:]]
    return list(zip(codes, [head.splitlines() for head in heads], strict=True))


def test_a_verb_without_extras_names_them_in_one_line(tmp_path):
    commands = [[verb, *NEEDED.get(verb, [])] for verb in VERBS]
    blocked = {module for modules in EXTRAS.values() for module in modules}
    for (verb, *_), (code, lines) in zip(commands, ran(tmp_path, blocked, commands), strict=True):
        extras = EXTRA.get(verb, "hf,report")
        assert code == 2 and len(lines) == 1, lines
        assert lines[0].startswith(f"operant {verb}: the command needs ")
        assert lines[0].endswith(f"which is not installed. Run: pip install 'operant[{extras}]'")


def test_a_verb_with_the_command_line_alone_names_what_it_lacks_before_it_runs(tmp_path):
    blocked = {module for modules in EXTRAS.values() for module in modules} - {"jsonargparse", "yaml", "rich"}
    commands = [
        ["train"],
        ["evaluate", "--model", "m"],
        ["demo"],
        ["extrapolate", "bank.csv", "--target", "t.csv"],
        ["audit", "--m", "8"],
    ]
    *early, audit = ran(tmp_path, blocked, commands)
    assert [(code, len(lines)) for code, lines in early] == [(2, 1)] * 4
    assert all("pip install 'operant[" in lines[0] for _, lines in early)
    assert audit[0] == 2 and len(audit[1]) > 5 and audit[1][-1].endswith("Run: pip install 'operant[report]'")


def test_text_tasks_without_the_hugging_face_stack_name_it(tmp_path):
    (tmp_path / "bank.jsonl").write_text('{"task": "a", "input": "x", "output": "y"}\n')
    words = ["extrapolate", "bank.jsonl", "--target", "bank.jsonl"]
    ((code, lines),) = ran(tmp_path, {"transformers"}, [words])
    assert (code, len(lines)) == (2, 1) and lines[0].endswith("pip install 'operant[hf,report]'")
