"""Logs of attempts: cut from one file, capped, sent again when it must be, and no burden on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hecaton.worker.doors.channel_folder import ChannelFolder
from hecaton.worker.link import leftovers as module
from hecaton.worker.link import logs
from hecaton.worker.link.leftovers import Leftovers
from hecaton.worker.link.logs import AttemptLog, ContainerLog
from tests.worker.brain import ref

A, B, C, D = ref("a"), ref("b"), ref("c"), ref("d")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ChannelFolder]:
    folder = ChannelFolder(tmp_path / "c")
    yield folder
    folder.close()


@pytest.fixture
def fd(folder: ChannelFolder) -> int:
    return folder.log_fd


@pytest.fixture
def leftovers(tmp_path: Path) -> Leftovers:
    return Leftovers(tmp_path / "leftovers")


@pytest.fixture
def container(folder: ChannelFolder, leftovers: Leftovers) -> ContainerLog:
    return ContainerLog(folder, leftovers.of("c"))


def prints_into(folder: ChannelFolder, name: str) -> int:
    """As the container does; a file descriptor of its own."""
    return os.open(folder.path / "out" / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def text(log: AttemptLog, limit: int = 1 << 30) -> bytes:
    return b"".join(piece.data for piece in log.pieces(limit))


def used(fd: int) -> int:
    """Bytes that the file takes on the disk."""
    os.fsync(fd)
    return os.fstat(fd).st_blocks * 512


def test_each_attempt_gets_its_own_part(fd: int, container: ContainerLog) -> None:
    log = container
    os.write(fd, b"loading the model\n")
    first = log.begin(A)
    os.write(fd, b"one\n")
    first.finish()
    second = log.begin(B)
    os.write(fd, b"two\n")
    assert text(first) == b"loading the model\none\n"
    assert text(second) == b"two\n"


def test_what_was_sent_is_not_sent_again_unless_the_connection_broke(fd: int, container: ContainerLog) -> None:
    log = container.begin(A)
    os.write(fd, b"abc")
    assert text(log) == b"abc"
    os.write(fd, b"def")
    assert [(piece.offset, piece.data) for piece in log.pieces(2)] == [(3, b"de")]
    log.rewind()
    assert text(log) == b"abcdef"


@pytest.mark.parametrize(("said", "believed"), [(2, b"ab"), (1_000_000, b"abcd"), (-5, b""), (None, b"abcd")])
def test_a_container_is_believed_about_the_end_of_its_log_only_within_the_file(
    fd: int, container: ContainerLog, said: int | None, believed: bytes
) -> None:
    log = container.begin(A)
    os.write(fd, b"abcd")
    log.finish(said)
    assert text(log) == believed


def test_of_a_storm_beginning_and_end_are_kept_the_middle_is_said_and_does_not_stay_on_the_disk(
    fd: int, container: ContainerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "HEAD", 1 << 20)
    monkeypatch.setattr(logs, "TAIL", 1 << 20)
    log = container.begin(A)
    for number in range(20):
        os.write(fd, b"%-1048575d\n" % number)
        log.trim()
        if number == 10:
            assert len(text(log)) == log.size == 1 << 20  # while it runs nobody knows where the end begins
    os.write(fd, b"the real reason\n")
    log.finish()
    assert used(fd) < 4 << 20
    log.rewind()
    sent = text(log)
    lines = sent.splitlines()
    assert [lines[0].strip(), lines[-1]] == [b"0", b"the real reason"]
    assert lines[2].startswith(b"[Hecaton left out the 18874384 bytes here")
    assert len(sent) == log.size == (2 << 20) + len(lines[2]) + 2
    assert log.tail(1 << 10) == "the real reason\n"


def test_the_space_of_accepted_logs_is_given_back(fd: int, container: ContainerLog) -> None:
    log = container
    for number in range(20):
        part = log.begin(ref(str(number)))
        os.write(fd, b"x" * (1 << 20))
        part.finish()
        log.forget(part.ref)
    assert used(fd) < 4 << 20
    assert not log.needed


def test_what_is_printed_between_jobs_is_given_back_too(fd: int, container: ContainerLog) -> None:
    log = container
    os.write(fd, b"x" * (8 << 20))
    log.trim_idle()
    assert used(fd) < 2 << 20


def test_the_tail_is_whole_lines(fd: int, container: ContainerLog) -> None:
    log = container.begin(A)
    os.write(fd, b"first line\nsecond line\nlast \xff line\n")
    assert log.tail(20) == "last \ufffd line\n"
    assert log.tail(1000).startswith("first line")


class TestJobsBehind:
    """They may have begun unheard, and print into the file of the one that is thought to run."""

    def test_what_was_there_before_is_its_own_and_the_rest_waits_for_its_end(
        self, fd: int, container: ContainerLog
    ) -> None:
        log = container.begin(A)
        os.write(fd, b"mine\n")
        doubts = []
        log.share()
        doubts.append(log.is_in_doubt)
        os.write(fd, b"whose?\n")
        doubts.append(log.is_in_doubt)
        assert doubts == [False, True]
        assert text(log) == b"mine\n"
        log.finish(len(b"mine\n"))
        assert (text(log), log.size) == (b"", 5)

    def test_once_none_is_left_all_is_its_own(self, fd: int, container: ContainerLog) -> None:
        log = container.begin(A)
        log.share()
        os.write(fd, b"mine\n")
        log.regain()
        assert not log.is_in_doubt
        assert text(log) == b"mine\n"

    def test_a_container_that_ends_leaves_in_no_log_what_may_be_of_another_job(
        self, fd: int, container: ContainerLog
    ) -> None:
        log = container.begin(A)
        log.share()
        os.write(fd, b"whose?\n")
        log.finish()
        assert log.size == 0

    def test_one_that_has_begun_unheard_itself_knows_of_nothing(self, fd: int, container: ContainerLog) -> None:
        os.write(fd, b"whose?\n")
        log = container.begin(A)
        log.follow()
        assert (log.size, log.is_in_doubt) == (0, True)


class TestFileAfterFile:
    def test_the_next_job_prints_into_the_next_file(
        self, fd: int, folder: ChannelFolder, container: ContainerLog
    ) -> None:
        first = container.begin(A)
        os.write(fd, b"one\n")
        first.finish(4)
        now = prints_into(folder, "log.1")
        assert container.moved("log.1")
        second = container.begin(B, 0)
        os.write(now, b"two\n")
        os.write(fd, b"of a child of the first\n")
        second.finish(4)
        os.close(now)
        assert (text(first), text(second), second.file.name) == (b"one\n", b"two\n", "log.1")

    def test_a_file_goes_when_the_server_has_its_log_and_nobody_prints_into_it(
        self, folder: ChannelFolder, container: ContainerLog
    ) -> None:
        now = prints_into(folder, "log.1")
        container.moved("log.1")
        log = container.begin(A, 0)
        os.write(now, b"one\n")
        log.finish()
        os.close(prints_into(folder, "log.2"))
        container.moved("log.2")
        container.forget(A)
        path = folder.path / "out" / "log.1"
        assert path.exists()
        os.write(now, b"x" * (4 << 20))
        container.trim_idle()
        assert used(now) < 2 << 20  # a child that was left behind fills no disk
        os.close(now)
        container.trim_idle()
        assert not path.exists()

    @pytest.mark.parametrize("name", ["link", "pipe", "folder", "missing", "../log", "a/b", "\0"])
    def test_what_is_no_plain_file_there_is_not_taken(
        self, fd: int, folder: ChannelFolder, container: ContainerLog, name: str
    ) -> None:
        out = folder.path / "out"
        os.symlink("/etc/passwd", out / "link")
        os.mkfifo(out / "pipe")
        (out / "folder").mkdir()
        assert not container.moved(name)
        log = container.begin(A)
        os.write(fd, b"goes on\n")
        assert text(log) == b"goes on\n"

    def test_a_later_process_finds_each_log_in_its_file(self, folder: ChannelFolder, leftovers: Leftovers) -> None:
        with open(folder.path / "out" / "log.7", "w") as file:
            file.write("not mine\nmine\n")
        later = ContainerLog(folder, leftovers.of("c"), begun=True)
        running = later.go_on(A, "log.7", 9)
        assert text(running) == b"mine\n"
        assert text(later.go_on(B, "log.7", 0, 9)) == b"not mine\n"
        assert later.go_on(C, "gone", 0).size == 0
        assert later.begin(D).file is running.file


class TestWhatIsNoJobs:
    """It goes into no job's log, and does not vanish."""

    @pytest.fixture
    def kept(self, tmp_path: Path) -> Path:
        return tmp_path / "leftovers" / "c.log"

    def test_what_is_printed_between_two_jobs_is_kept_apart(self, fd: int, container: ContainerLog, kept: Path) -> None:
        os.write(fd, b"loading the model\n")
        first = container.begin(A)
        os.write(fd, b"one\n")
        first.finish()
        os.write(fd, b"a thread\n")
        second = container.begin(B)
        os.write(fd, b"two\n")
        second.finish()
        assert [text(log) for log in (first, second)] == [b"loading the model\none\n", b"two\n"]
        assert kept.read_bytes() == b"[after job a, attempt 1]\na thread\n"

    def test_what_a_child_prints_after_its_job_is_kept_with_that_jobs_name(
        self, fd: int, folder: ChannelFolder, container: ContainerLog, kept: Path
    ) -> None:
        first = container.begin(A)
        os.write(fd, b"one\n")
        first.finish(4)
        os.close(prints_into(folder, "log.1"))
        container.moved("log.1")
        second = container.begin(B)
        os.write(fd, b"of a child\n")
        container.trim_idle()
        os.write(fd, b"of it, too\n")
        container.forget(A)
        second.finish()
        os.write(fd, b"last words\n")
        container.close()
        assert (text(first), text(second)) == (b"one\n", b"")
        assert kept.read_bytes() == b"[after job a, attempt 1]\nof a child\nof it, too\nlast words\n"

    def test_what_those_say_elsewhere_that_run_since_the_start_is_kept_when_the_first_job_has_ended(
        self, container: ContainerLog, kept: Path
    ) -> None:
        first = container.begin(A)
        assert container.add(b"a service\n")
        first.finish()
        container.opens = False
        assert not container.add(b"goes on\n")
        assert (text(first), kept.read_bytes()) == (b"a service\n", b"[after job a, attempt 1]\ngoes on\n")

    def test_what_may_be_of_another_job_is_kept_too(self, fd: int, container: ContainerLog, kept: Path) -> None:
        log = container.begin(A)
        log.share()
        os.write(fd, b"whose?\n")
        log.finish()
        container.trim_idle()
        assert (log.size, kept.read_bytes()) == (0, b"[after job a, attempt 1]\nwhose?\n")

    def test_the_log_of_a_job_that_is_handed_back_is_no_leftover(
        self, fd: int, container: ContainerLog, kept: Path
    ) -> None:
        container.begin(A)
        os.write(fd, b"step 1\n")
        container.forget(A)
        container.close()
        assert not kept.exists()

    def test_a_later_process_keeps_what_comes_from_then_on(
        self, fd: int, folder: ChannelFolder, leftovers: Leftovers, kept: Path
    ) -> None:
        os.write(fd, b"of earlier jobs\n")
        later = ContainerLog(folder, leftovers.of("c"), begun=True)
        os.write(fd, b"meanwhile\n")
        later.begin(A)
        assert kept.read_bytes() == b"meanwhile\n"

    def test_a_storm_is_counted_and_does_not_fill_the_disk(self, fd: int, container: ContainerLog, kept: Path) -> None:
        container.begin(A).finish()
        with capture_logs() as said:
            for _ in range(3):
                os.write(fd, b"x" * module.KEPT_OF_ONE)
                container.trim_idle()
            container.close()
        assert kept.stat().st_size == module.KEPT_OF_ONE + len(b"[after job a, attempt 1]\n")
        lines = [(line["job"], line["bytes"], line["kept_in"]) for line in said]
        assert lines == [("a", count * module.KEPT_OF_ONE, str(kept)) for count in (1, 3)], "at once, and at the end"

    def test_of_many_containers_the_latest_are_kept(self, leftovers: Leftovers, kept: Path) -> None:
        for number in range(module.KEPT_FILES + 5):
            leftovers.of(f"c{number}").take(A, b"x", 1)
            os.utime(kept.with_name(f"c{number}.log"), (number, number))
        names = {path.name for path in kept.parent.iterdir()}
        assert names == {f"c{number}.log" for number in range(5, module.KEPT_FILES + 5)}
