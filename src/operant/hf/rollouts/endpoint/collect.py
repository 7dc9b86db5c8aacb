"""M rollouts of every prompt from a server, many requests at once, kept as they arrive."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from operant.core.progress import LoggedProgress
from operant.core.record import append_record, read_records
from operant.hf.rollouts.chat import asked
from operant.hf.rollouts.endpoint.client import EndpointError, Question, Served, Server
from operant.hf.rollouts.rows import Row
from operant.verify import Prompt


def served(server: Server, prompts: Sequence[Prompt], stored: Path, concurrency: int) -> tuple[list[Row], list[str]]:
    """Rows of all prompts, in their order, and warnings.

    Args:
        server: where they are sampled.
        prompts: what is asked; each has its own id.
        stored: JSON lines to which the rows of every answer are added. What it holds already is not asked again.
        concurrency: requests that are open at once.

    Raises:
        EndpointError: if the server fails; ``stored`` holds what it answered before.
        DataError: for earlier turns in prompts that are asked as texts.
    """
    return asyncio.run(_Run(server, prompts, stored).rows(concurrency))


class _Run:
    def __init__(self, server: Server, prompts: Sequence[Prompt], stored: Path) -> None:
        self.server, self.prompts, self.stored = server, prompts, stored
        self.questions: Sequence[Question] = asked(prompts, chat=server.chat)
        self.found: dict[Any, list[Row]] = defaultdict(list)
        for record in read_records(stored) if stored.is_file() else []:
            if record["kind"] == "served":
                for row in record["rows"]:
                    self.found[row["prompt"]].append(row)
        self.wanted = server.settings.rollouts

    async def rows(self, concurrency: int) -> tuple[list[Row], list[str]]:
        """All rows, and warnings."""
        warnings: list[str] = []
        total = self.wanted * len(self.prompts)
        kept = sum(min(len(self.found[p.id]), self.wanted) for p in self.prompts)
        try:
            if kept < total:
                warnings = await self.server.probe(self.questions[0])
                for note in self.server.notes:
                    Console().print(note, soft_wrap=True)
                with _progress() as bar:
                    task = bar.add_task("sampling", total=total, completed=kept)
                    await self._sample(concurrency, lambda count: bar.advance(task, count))
        except EndpointError as error:
            kept = sum(len(rows) for rows in self.found.values())
            if not kept:
                raise
            text = f"{error} {kept} of {total} rollouts are kept: continue with --resume true."
            raise EndpointError(text) from error
        finally:
            await self.server.close()
        rows = [row for p in self.prompts for row in self.found[p.id][: self.wanted]]
        return rows, warnings + self._doubts()

    async def _sample(self, concurrency: int, advance: Any) -> None:
        """Send all requests; the first that fails for good ends the others."""
        todo = self._requests()

        async def work() -> None:
            for i, count in todo:  # one iterator for all workers
                while count:
                    answers = await self.server.ask(self.questions[i], count)
                    self._keep(self.prompts[i], answers)
                    count -= len(answers)
                    advance(len(answers))

        workers = [asyncio.create_task(work()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _requests(self) -> Iterator[tuple[int, int]]:
        """(index of the prompt, completions) of every request that is missing."""
        for i, p in enumerate(self.prompts):
            missing = self.wanted - len(self.found[p.id])
            while missing > 0:
                count = min(missing, self.server.most)
                yield i, count
                missing -= count

    def _keep(self, p: Prompt, answers: Sequence[Served]) -> None:
        """The rows of one answer, on disk before the next is counted."""
        new: list[Row] = []
        for a in answers:
            known = {"tokens": a.tokens, "finished": a.finished, "stop": a.stop, "log_p": a.log_p}
            row = {"prompt": p.id, "target": p.target, "completion": a.text}
            new.append(row | {name: value for name, value in known.items() if value is not None})
        append_record(self.stored, "served", rows=new)
        self.found[p.id] += new

    def _doubts(self) -> list[str]:
        """A warning if no prompt has two different completions: then perhaps nothing was sampled."""
        texts = [{row["completion"] for row in self.found[p.id]} for p in self.prompts]
        if self.wanted == 1 or any(len(t) > 1 for t in texts):
            return []
        return [
            f"the {self.wanted} completions of each prompt are equal. Either the model is certain of all its answers, "
            "or the server ignores the temperature."
        ]


class _Rate(ProgressColumn):
    """Rollouts a second."""

    def render(self, task: Task) -> Text:
        """The speed of the last half minute."""
        return Text(f"{task.speed:.1f} rollouts/s" if task.speed else "")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return LoggedProgress(*columns, console=Console())
