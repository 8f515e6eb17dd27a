"""Copies of the package and its tests, and runs of chosen tests against them.

Bytecode in a copy is checked by the hash of its source and never written during a run: none can hide a mutant.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import py_compile
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tests.mutants.mutant import Mutant, Worlds

REPOSITORY = Path(__file__).resolve().parents[2]

LIMIT = 180.0
"""Seconds for the tests of one mutant. Who needs longer has not answered: that counts for nobody."""

_PARTS = ("hecaton", "tests")
_FAILED = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+)", re.MULTILINE)
_SLIP = re.compile(r"\b(?:NameError|UnboundLocalError|SyntaxError|IndentationError)\b")
"""A mutant that is no Python any more would be caught by everything, and show nothing."""

_NOTHING_FAILED, _FAILED_TESTS = 0, 1


class Verdict(msgspec.Struct, frozen=True):
    """`caught_by`: the test that failed first, or the simulator's seed; None: nobody noticed."""

    mutant: Mutant
    caught_by: str | None
    seconds: float
    output: str


class Copy:
    """For one run at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in _PARTS:
            shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "docs").mkdir()
        for file in ("pyproject.toml", "docs/commands.md"):
            shutil.copy(REPOSITORY / file, folder / file)
        for part in _PARTS:
            compileall.compile_dir(
                folder / part, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
            )
        origin = self._python("-c", "import hecaton; print(hecaton.__file__)").stdout.strip()
        if Path(origin).parent != folder / "hecaton":
            raise RuntimeError(f"tests in {folder} would run against {origin}: no mutant could be seen")

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT,
        )

    @contextlib.contextmanager
    def _with(self, mutant: Mutant) -> Iterator[None]:
        file = self.folder / "hecaton" / mutant.file
        before = file.read_text(encoding="utf-8")
        file.write_text(mutant.applied(self.folder / "hecaton"), encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(before, encoding="utf-8")

    def examine(self, mutant: Mutant) -> Verdict:
        with self._with(mutant):
            begun = time.monotonic()
            try:
                failed, output = self._run(mutant.caught_by)
            except subprocess.TimeoutExpired:
                failed, output = None, f"no answer within {LIMIT:g} s"
            return Verdict(mutant, failed, time.monotonic() - begun, output)

    def failures(self, tests: Iterable[str] | Worlds) -> str | None:
        """The output of what fails without any mutant; None: nothing does."""
        failed, output = self._run(tests)
        return None if failed is None else output

    def _run(self, tests: Iterable[str] | Worlds) -> tuple[str | None, str]:
        """What failed first, and the output. RuntimeError if the tests could not be run at all."""
        if isinstance(tests, Worlds):
            done = self._python("-m", "tests.simulator", "--seeds", *map(str, tests.seeds))
            named = re.search(r"^seed (\d+):", done.stdout, re.MULTILINE)
            failed = f"the simulator, seed {named[1]}" if named else "the simulator"
        else:
            options = (
                "-x",
                "-q",
                "-rfE",
                "-p",
                "no:cacheprovider",
                "--hypothesis-seed=0",
                f"--basetemp={self.folder}/tmp",
            )
            done = self._python("-m", "pytest", *options, *tests)
            named = _FAILED.search(done.stdout)
            failed = named[1] if named else "the tests"
        if done.returncode == _NOTHING_FAILED:
            return None, done.stdout
        if done.returncode != _FAILED_TESTS or _SLIP.search(done.stdout):
            raise RuntimeError(f"these tests cannot be run: {tests}\n{done.stdout}")
        return failed, done.stdout


def examine(mutants: Sequence[Mutant], lanes: int, say: Callable[[Verdict], None]) -> list[Verdict]:
    """Each of them, several at once; first all of their tests without any, which must pass. RuntimeError if not."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(lanes) as pool:
        free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in pool.map(lambda number: Copy(Path(folder) / str(number)), range(lanes)):
            free.put(copy)

        @contextlib.contextmanager
        def copy_of_ours() -> Iterator[Copy]:
            copy = free.get()
            try:
                yield copy
            finally:
                free.put(copy)

        def sound(tests: tuple[str, ...] | Worlds) -> None:
            with copy_of_ours() as copy:
                output = copy.failures(tests)
            if output is not None:
                raise RuntimeError(f"without any mutant, these fail already:\n{output}")

        def one(mutant: Mutant) -> Verdict:
            with copy_of_ours() as copy:
                verdict = copy.examine(mutant)
            say(verdict)
            return verdict

        list(pool.map(sound, _all_tests(mutants, lanes)))
        return list(pool.map(one, mutants))


def _all_tests(mutants: Sequence[Mutant], lanes: int) -> list[tuple[str, ...] | Worlds]:
    """What the mutants name, each once, in as many parts as there are lanes."""
    tests = sorted(
        {test for mutant in mutants if not isinstance(mutant.caught_by, Worlds) for test in mutant.caught_by}
    )
    worlds = [mutant.caught_by.seeds for mutant in mutants if isinstance(mutant.caught_by, Worlds)]
    seeds = sorted({seed for some in worlds for seed in some})
    parts = [tuple(tests[lane::lanes]) for lane in range(lanes)]
    return [*(part for part in parts if part), *(Worlds((seed,)) for seed in seeds)]
