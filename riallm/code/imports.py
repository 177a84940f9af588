"""Which file of a project imports which: names to paths, edges, what a test can reach, and an order.

Nothing is imported to find out. A name is looked up as Python would with the project's folder, its `src` and the
folder around the importing file's own package on the path; so packages, namespace packages, flat modules and
the src layout all resolve. Files that do not parse are kept, with the imports that their single lines still show.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from riallm.code.source import Source
from riallm.core.errors import ProjectError

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist"})
_IMPORT_LINE = re.compile(r"^[ \t]*((?:from[ \t]+[.\w]+[ \t]+import|import)[ \t]+[^#\r\n]+)", re.MULTILINE)


def project_files(root: Path) -> list[str]:
    """Paths of the project's Python files, sorted, relative to `root`, with forward slashes.

    Hidden folders, virtual environments, build outputs and folders behind links are left out.
    """
    found = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(
            name
            for name in names
            if not name.startswith(".") and name not in _SKIPPED and not (Path(folder) / name / "pyvenv.cfg").exists()
        )
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    return sorted(found)


@dataclass(frozen=True, kw_only=True)
class ImportGraph:
    """Imports between the files of one project, by path.

    edges: path -> paths that it imports, in the order in which it does; packages on the way included.
    stars: path -> those of them that it takes all names of.
    unparsed: path -> why the file could not be parsed.
    """

    edges: Mapping[str, tuple[str, ...]]
    stars: Mapping[str, frozenset[str]]
    unparsed: Mapping[str, str]

    @staticmethod
    def build(root: Path) -> ImportGraph:
        """The graph of a folder; files that cannot be read or parsed end up in `unparsed`."""
        files: dict[str, Source | str] = {}
        for path in project_files(root):
            try:
                data = (root / path).read_bytes()
            except OSError as error:
                files[path] = f"cannot be read ({error.strerror})"
                continue
            try:
                files[path] = Source.parse(path, data)
            except ProjectError as error:
                files[path] = f"{error}\n" + data.decode("utf-8", "replace")
        return ImportGraph.of(files)

    @staticmethod
    def of(files: Mapping[str, Source | str]) -> ImportGraph:
        """The graph of parsed files; one that does not parse is given as its reason, a line end and its text."""
        finder = _Finder(files)
        edges: dict[str, tuple[str, ...]] = {}
        stars: dict[str, frozenset[str]] = {}
        unparsed = {}
        for path, source in sorted(files.items()):
            if isinstance(source, str):
                reason, _, text = source.partition("\n")
                unparsed[path] = reason
                nodes = list(_single_lines(text))
            else:
                nodes = [
                    node for node in ast.walk(source.tree) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
                ]
            found: dict[str, None] = dict.fromkeys(finder.conftests(path))
            starred = set()
            for node in nodes:
                targets = finder.targets(path, node)
                found.update(dict.fromkeys(targets))
                if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                    starred.update(targets[-1:])
            found.pop(path, None)
            edges[path] = tuple(found)
            stars[path] = frozenset(starred)
        return ImportGraph(edges=edges, stars=stars, unparsed=unparsed)

    @cached_property
    def modules(self) -> dict[str, str]:
        """Module name -> path; names count from the project's folder, or from its `src`."""
        return {self.name_of(path): path for path in self.edges}

    def name_of(self, path: str) -> str:
        """The module's dotted name; "" for an `__init__.py` at the very top."""
        parts = list(PurePosixPath(path).with_suffix("").parts)
        if parts[0] == "src" and len(parts) > 1:
            parts = parts[1:]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def imports_of(self, path: str) -> tuple[str, ...]:
        """Paths that a file imports directly."""
        return self.edges.get(path, ())

    def importers_of(self, path: str) -> tuple[str, ...]:
        """Paths of the files that import it directly, sorted."""
        return self._importers.get(path, ())

    @cached_property
    def _importers(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for path, targets in self.edges.items():
            for target in targets:
                found.setdefault(target, []).append(path)
        return {target: tuple(sorted(paths)) for target, paths in found.items()}

    def reachable_from(self, *paths: str) -> dict[str, int]:
        """Path -> number of import steps, for everything that the files can reach; themselves at 0, nearest first."""
        distance = {path: 0 for path in paths if path in self.edges}
        queue = list(distance)
        for path in queue:
            for target in self.edges[path]:
                if target in self.edges and target not in distance:
                    distance[target] = distance[path] + 1
                    queue.append(target)
        return distance

    def in_order(self, paths: Iterable[str] | None = None) -> list[str]:
        """The files with what they import before them; within a cycle, in the order of their paths."""
        wanted = sorted(self.edges if paths is None else set(paths))
        return [path for group in self._components(wanted) for path in sorted(group)]

    def cycles(self) -> list[list[str]]:
        """Groups of two files or more that import each other, each sorted."""
        return [sorted(group) for group in self._components(sorted(self.edges)) if len(group) > 1]

    def _components(self, wanted: list[str]) -> Iterator[list[str]]:
        """Strongly connected components, imported ones first (Tarjan 1972, without recursion)."""
        inside = set(wanted)
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        open_: set[str] = set()
        for root in wanted:
            if root in index:
                continue
            work = [(root, iter(self.edges.get(root, ())))]
            index[root] = low[root] = len(index)
            stack.append(root)
            open_.add(root)
            while work:
                path, targets = work[-1]
                child = next((target for target in targets if target in inside), None)
                if child is None:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[path])
                    if low[path] == index[path]:
                        at = stack.index(path)
                        group, stack[at:] = stack[at:], []
                        open_.difference_update(group)
                        yield group
                elif child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    open_.add(child)
                    work.append((child, iter(self.edges.get(child, ()))))
                elif child in open_:
                    low[path] = min(low[path], index[child])

    def same_module(self, one: str, other: str) -> bool:
        """Whether two files belong to one package: the same folder, an `__init__.py` counting for its folder."""
        return one == other or PurePosixPath(one).parent == PurePosixPath(other).parent


class _Finder:
    """Looks names up among the paths of a project."""

    def __init__(self, files: Iterable[str]) -> None:
        self.files = frozenset(files)
        self.folders = {str(parent) for path in self.files for parent in PurePosixPath(path).parents}

    def conftests(self, path: str) -> list[str]:
        """What pytest imports before a test file."""
        pure = PurePosixPath(path)
        if not (pure.name.startswith("test_") or pure.name.endswith("_test.py")):
            return []
        return [name for folder in reversed(pure.parents) if (name := str(folder / "conftest.py")) in self.files]

    def targets(self, path: str, node: ast.AST) -> list[str]:
        """Paths that one import statement runs, outer packages first."""
        if isinstance(node, ast.Import):
            return [target for alias in node.names for target in self.absolute(path, alias.name)]
        if isinstance(node, ast.ImportFrom):
            base = self.base(path, node)
            if base is None:
                return []
            names = [f"{base}.{alias.name}".strip(".") for alias in node.names if alias.name != "*"]
            where = path if node.level == 0 else None
            found = dict.fromkeys(self.absolute(where, base))
            for name in names:
                found.update(dict.fromkeys(self.absolute(where, name)))
            return list(found)
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            word = ast.unparse(node.func)
            target = node.args[0].value
            if word in ("importlib.import_module", "import_module", "__import__") and isinstance(target, str):
                return self.absolute(path, target) if not target.startswith(".") else []
        return []

    def base(self, path: str, node: ast.ImportFrom) -> str | None:
        """The dotted name that a `from` import starts at, counted from the project's folder if it is relative."""
        if node.level == 0:
            return node.module or ""
        parents = PurePosixPath(path).parents
        if node.level > len(parents):
            return None
        folder = parents[node.level - 1]
        return ".".join([*folder.parts, *([node.module] if node.module else [])])

    def absolute(self, path: str | None, name: str) -> list[str]:
        """Files that importing the dotted name runs; `path` is the importing file, None to count from the project."""
        for root in self.roots(path):
            found = self.under(root, name)
            if found is not None:
                return found
        return []

    def roots(self, path: str | None) -> list[PurePosixPath]:
        """Folders that stand for entries of `sys.path`, the likelier first."""
        top = PurePosixPath(".")
        if path is None:
            return [top]
        folder = PurePosixPath(path).parent
        while str(folder / "__init__.py") in self.files and folder != top:  # a package may be the project's own folder
            folder = folder.parent
        roots = [folder, top, PurePosixPath("src"), PurePosixPath("lib")]
        return list(dict.fromkeys(root for root in roots if str(root) in self.folders))

    def under(self, root: PurePosixPath, name: str) -> list[str] | None:
        """Files run by importing the name from `root`; None when its first part or its last is not there."""
        found = []
        folder = root
        parts = [part for part in name.split(".") if part]
        for index, part in enumerate(parts):
            module, package = str(folder / f"{part}.py"), str(folder / part / "__init__.py")
            if package in self.files:
                found.append(package)
            elif module in self.files:
                found.append(module)
                return found
            elif str(folder / part) not in self.folders:
                return found if index and found else None
            folder = folder / part
        return found


def _single_lines(text: str) -> Iterator[ast.AST]:
    for match in _IMPORT_LINE.finditer(text):
        try:
            yield from ast.parse(match.group(1).strip().rstrip("\\(, \t") or "0").body
        except (SyntaxError, ValueError):
            module = re.match(r"from[ \t]+(\.*)([\w.]*)", match.group(1))
            if module:
                yield ast.ImportFrom(module=module[2] or None, names=[ast.alias("*")], level=len(module[1]))
