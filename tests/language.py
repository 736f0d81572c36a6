"""The package's language in figures: verbs, participles, names with `of`, comments, modules, lines.

    python -m tests.language [FOLDER …] [--names]

Read from the syntax trees of `medseg_pl`, or of the folders given; `--names` lists the functions that begin with no
verb. Special methods, properties, hooks that a framework calls, quantities (`dice`) and functions nested in another
are left out of the count of verbs.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

PACKAGE = Path(__file__).resolve().parents[1] / "medseg_pl"
TEMPLATE = "template"

WORDS = {
    name: frozenset(words.split())
    for name, words in yaml.safe_load((Path(__file__).parent / "words.yaml").read_text(encoding="utf-8")).items()
}
HOOKS = (
    "on_", "setup", "teardown", "forward", "training_step", "validation_step", "test_step", "predict_step", "train_",
    "val_dataloader", "test_dataloader", "predict_dataloader", "state_dict", "optimizer_", "main", "extra_repr",
    "visit_", "before_", "after_", "error", "items", "keys", "values", "exception",
)  # fmt: skip


@dataclass(frozen=True)
class Function:
    """A function or method of the package."""

    path: Path
    line: int
    name: str
    counted: bool

    @property
    def words(self) -> list[str]:
        """The parts of the name, its underscores in front left out."""
        return self.name.strip("_").split("_")

    @property
    def begins_with_verb(self) -> bool:
        """Whether the first word is a verb, or the whole name a quantity."""
        return self.words[0] in WORDS["verbs"]

    @property
    def is_participle(self) -> bool:
        """Whether the name is one past participle and nothing else."""
        (first, *more) = self.words
        return not more and (
            first in WORDS["participles"] or (first.endswith("ed") and first not in {"seed", "embed", "need"})
        )

    @property
    def has_of(self) -> bool:
        """Whether one of the words is `of`."""
        return "of" in self.words


def find_modules(folders: list[Path]) -> list[Path]:
    """List the modules below some folders, the project template left out."""
    return sorted(path for folder in folders for path in folder.rglob("*.py") if TEMPLATE not in path.parts)


def find_functions(path: Path) -> Iterator[Function]:
    """List the functions of a module, nested ones left out."""
    stack: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(path, child.lineno, child.name, _is_counted(child))
            else:
                stack.append(child)


def _is_counted(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
    dunder = node.name.startswith("__") and node.name.endswith("__")
    is_property = any(word in decorators for word in ("property", ".setter", "overload"))
    plain = node.name.strip("_")
    return not (dunder or is_property or plain.startswith(HOOKS) or plain in WORDS["quantities"])


def count_comments(path: Path) -> int:
    """Count the lines of a module that carry a comment."""
    with io.StringIO(path.read_text(encoding="utf-8")) as text:
        marks = {"# type:", "# noqa", "# fmt:"}
        return sum(
            token.type == tokenize.COMMENT and not token.string.startswith(tuple(marks))
            for token in tokenize.generate_tokens(text.readline)
        )


def measure(folders: list[Path]) -> tuple[dict[str, float], list[Function]]:
    """Measure the language of the modules below some folders."""
    modules = find_modules(folders)
    functions = [each for path in modules for each in find_functions(path)]
    counted = [each for each in functions if each.counted]
    verbless = [each for each in counted if not each.begins_with_verb]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in modules)
    share = 100 / max(1, len(counted))
    return {
        "modules": len(modules),
        "lines": lines,
        "functions": len(functions),
        "functions counted": len(counted),
        "no verb first, %": round(share * len(verbless), 1),
        "bare participles, %": round(share * sum(each.is_participle for each in counted), 2),
        "names with of, %": round(share * sum(each.has_of for each in counted), 2),
        "comments in 100 lines": round(100 * sum(map(count_comments, modules)) / max(1, lines), 2),
    }, verbless


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[PACKAGE])
    parser.add_argument("--names", action="store_true", help="also the functions that begin with no verb")
    options = parser.parse_args()
    figures, verbless = measure(options.folders)
    for each in verbless if options.names else ():
        print(f"{each.path}:{each.line}: {each.name}")
    for name, value in figures.items():
        print(f"{name:24} {value:g}")


if __name__ == "__main__":
    main()
