"""The measures of the house: circles, sizes, names, comments, repeated lines. Run: python benchmarks/house.py [SRC]."""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "operant"
SAME = 10
"""Lines in a row that stand twice are a repetition."""
NO_COMMENTS = ("# noqa", "# pyright:", "# type:")
"""Marks for tools, which explain nothing."""


def modules(source: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module; a package is its ``__init__``."""
    found: dict[str, Path] = {}
    for path in sorted(source.rglob("*.py")):
        parts = ("operant", *path.relative_to(source).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(files: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules of operant that it imports, wherever the import stands in the file, for types too."""
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                # "from package import module" needs the module; "from module import name" needs the module only
                wanted |= {f"{module}.{a.name}" if f"{module}.{a.name}" in files else module for a in node.names}
        found[name] = wanted & files.keys() - {name}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of nodes that reach each other: strongly connected components of two nodes and more (Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            component: list[str] = []
            while not component or component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in order:
            visit(node)
    return found


def folder_pairs(graph: dict[str, set[str]], files: dict[str, Path]) -> list[str]:
    """Folders that import each other; a folder and one inside it are no pair."""
    arrows: set[tuple[str, str]] = set()
    for name, others in graph.items():
        a = str(files[name].parent)
        arrows |= {(a, b) for b in (str(files[other].parent) for other in others) if a != b}
    apart = {(a, b) for a, b in arrows if not a.startswith(b + "/") and not b.startswith(a + "/")}
    return [f"{Path(a).name} <-> {Path(b).name}" for a, b in sorted(apart) if a < b and (b, a) in apart]


def defined(path: Path) -> Iterator[tuple[str, str]]:
    """(kind, name) of what a file defines at its top: class, def, value."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield "class", node.name
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield "def", node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (("value", t.id) for t in targets if isinstance(t, ast.Name))


def exported(path: Path) -> list[str]:
    """The names in ``__all__`` of a package."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def twice(files: dict[str, Path]) -> dict[str, list[str]]:
    """Public classes and type names (capitalized values) that two files define."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, path in files.items():
        for kind, name in defined(path):
            if name[0].isupper() and not name.isupper() and kind in ("class", "value"):
                places[name].append(module)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def comments(path: Path) -> int:
    """Lines with a comment that is no mark for a tool."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return sum(t.type == tokenize.COMMENT and not t.string.startswith(NO_COMMENTS) for t in tokens)


def repeated(files: dict[str, Path]) -> list[tuple[str, str]]:
    """Places of ``SAME`` equal lines in a row; blank lines, imports and lone brackets do not count."""
    first: dict[tuple[str, ...], str] = {}
    found: list[tuple[str, str]] = []
    for path in files.values():
        lines = [(i, line.strip()) for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
        lines = [(i, s) for i, s in lines if len(s) > 2 and not s.startswith(("import ", "from ", '"""'))]
        last = -SAME
        for k in range(len(lines) - SAME + 1):
            here = f"{path.name}:{lines[k][0]}"
            block = tuple(s for _, s in lines[k : k + SAME])
            if block in first and k >= last + SAME:
                found.append((first[block], here))
                last = k
            first.setdefault(block, here)
    return found


def measures(source: Path) -> dict[str, object]:
    """Every measure, by name."""
    files = modules(source)
    graph = imports(files)
    sizes = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    code = {name: size for name, size in sizes.items() if files[name].name != "__init__.py"}
    folders: dict[Path, int] = defaultdict(int)
    for path in files.values():
        folders[path.parent] += 1
    names = [(m, n) for m in code for _, n in defined(files[m]) if not n.startswith("_")]
    packages = {name: exported(path) for name, path in files.items() if path.name == "__init__.py"}
    longest, largest = max(code, key=code.__getitem__), max(folders, key=folders.__getitem__)
    return {
        "files": len(files),
        "lines": sum(sizes.values()),
        "longest file": f"{longest} {code[longest]}",
        "files past 350 lines": sorted(m for m in code if code[m] > 350),
        "median file": statistics.median(code.values()),
        "largest folder": f"{largest.name} {folders[largest]}",
        "file circles": circles(graph),
        "folder pairs": folder_pairs(graph, files),
        "public names in modules": len(names),
        "exported names": sum(map(len, packages.values())),
        "exports by package": {name: len(found) for name, found in packages.items() if found},
        "comment lines, %": round(100 * sum(map(comments, files.values())) / sum(sizes.values()), 2),
        "type names defined twice": twice(files),
        f"repetitions of {SAME} lines": repeated(files),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, nargs="?", default=SOURCE)
    for name, value in measures(parser.parse_args().source).items():
        print(f"{name:26} {value}")
