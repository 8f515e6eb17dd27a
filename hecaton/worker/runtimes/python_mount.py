"""The folder that appears read-only at PYTHON_TARGET in every container, and puts one name on its Python's path:
`hecaton`, for images that lack it or have one older than 2.0. The launchers of scripts and handler files lie in it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import hecaton
from hecaton.worker.runtimes.port import PYTHON_TARGET

SHELL_LAUNCHER = f"{PYTHON_TARGET}/hecaton/launch.sh"
"""Run as `sh LAUNCHER OUTPUT INTERPRETERS FILE ARGUMENTS...`. OUTPUT: path of a file that what is printed is appended
to. INTERPRETERS: for a file that names none, the first that is there, with commas between. Either may be "-": none.
Neither is empty or has a blank, since an ENTRYPOINT may end in `exec $@`."""

PYTHON_LAUNCHER = f"{PYTHON_TARGET}/hecaton/launch.py"
"""The same for images without a shell, run by their Python."""

# The mount comes first on the image's sys.path: before what the image or the user has put on PYTHONPATH, which may hold
# a hecaton that is older than 2.0, of another protocol. From 2.0 on the image's own is taken: it was chosen, and
# speaks ours. Python 3.8 syntax and the standard library only.
_SHIM = '''\
"""Mounted by the Hecaton worker; gives way to a hecaton package of the image's own from 2.0 on."""

import importlib  # `importlib.util` has the same two names, but imports typing: 3 ms of every start
import os
import sys

__version__ = "{version}"


def _load_the_images_own():
    mount = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    rest = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != mount]
    spec = importlib._bootstrap_external.PathFinder.find_spec("hecaton", rest)
    if spec is None or spec.loader is None or not spec.origin:
        return
    older = _older(spec.origin, rest)
    if older:
        _say_once(older)
        return
    module = importlib._bootstrap.module_from_spec(spec)
    sys.modules["hecaton"] = module  # the import system hands out what it finds here when this file has run
    spec.loader.exec_module(module)


def _older(origin, path):
    """Its version, if that is older than 2.0. Read, not run: an old one may import whatever it likes. One that says no
    version is somebody's own."""
    try:
        with open(origin, encoding="utf-8") as file:
            said = [line.partition("=")[2] for line in file if line.startswith("__version__")]
        folders = [entry or os.curdir for entry in path if os.path.isdir(entry or os.curdir)]
        installed = [name[8:] for entry in folders for name in os.listdir(entry) if name.startswith("hecaton-")]
    except (OSError, ValueError):
        return ""
    for version in said + installed:
        version = version.partition("#")[0].partition(".dist")[0].partition("-")[0].strip(" '\\"\\n")
        if version[:1].isdigit():
            return version if version[:2] in ("0.", "1.") else ""
    return ""


def _say_once(version):
    """Not in each process that the first one starts."""
    line = "hecaton: the image has hecaton {{}}, another program; the worker's own hecaton.serverless is used\\n"
    try:
        if os.environ.get("HECATON_OLDER_IN_IMAGE") != version:
            os.environ["HECATON_OLDER_IN_IMAGE"] = version
            os.write(2, line.format(version).encode())
    except (OSError, ValueError):
        pass


_load_the_images_own()
'''

# POSIX only: dash, bash and busybox read it. Its variables have a prefix, since one that the image's environment has is
# exported again with what the launcher wrote into it. It says that it runs before anything can go wrong here, by a pipe
# that is opened for both directions, which waits for nobody. Exit codes and signals are the program's own.
# HECATON_FILE_NONCE is what a handler file needs to be given work: an image whose ENTRYPOINT starts a handler of its
# own, whatever it is given, would do the work instead.
#
# Where SIGTERM is for the whole process group (`port.GROUP_VARIABLE`), the launcher outlives the file: a shell that
# waits for `python train.py` ends at once by the signal, and with it would the container, before Python has saved its
# work. The file is in the foreground: in the background all that it starts would ignore SIGINT. Elsewhere it takes the
# launcher's place, since the signal is for that process alone.
_SHELL_LAUNCHER = """\
hecaton_output=$1 hecaton_interpreters=$2 hecaton_file=$3
shift 3
hecaton_mount=${0%/hecaton/*}
hecaton_folder=${hecaton_mount%/*}
[ "$hecaton_output" = - ] || exec >>"$hecaton_output" 2>&1
echo 1<>"$hecaton_folder/launched"

fail() {
    echo "hecaton: $*" >&2
    exit 127
}

[ "$HECATON_DIR" = "$hecaton_folder" ] || fail "the image's ENTRYPOINT took the variables of the job out of" \\
    "the environment: --entrypoint none runs it without"
[ -z "$HECATON_FILE_NONCE" ] || export HECATON_NONCE="$HECATON_FILE_NONCE"
unset HECATON_FILE_NONCE
hecaton_together=$HECATON_GROUP_SIGNALS
unset HECATON_GROUP_SIGNALS
case :$PYTHONPATH: in
*:"$hecaton_mount":*) ;;
*) export PYTHONPATH="$hecaton_mount${PYTHONPATH:+:$PYTHONPATH}" ;;
esac

goes_on() {
    for hecaton_stat in /proc/[0-9]*/stat; do
        IFS= read -r hecaton_line <"$hecaton_stat" || continue
        set -- ${hecaton_line##*) }
        hecaton_pid=${hecaton_stat#/proc/}
        hecaton_pid=${hecaton_pid%/stat}
        case $hecaton_above in
        *" $hecaton_pid "*) continue ;;  # an ENTRYPOINT that waits for this waits for nothing else
        esac
        [ "$3" = "$hecaton_group" ] && [ "$1" != Z ] && return 0
    done
    return 1
}

run() {
    [ -n "$hecaton_together" ] || exec "$@"
    IFS=' '
    hecaton_asked=
    trap hecaton_asked=1 TERM
    trap : INT HUP QUIT USR1 USR2  # what the file may send to its own group, and live through
    exec 3>&2 2>/dev/null  # a shell says of what has ended by a signal that it has
    (exec "$@" 2>&3 3>&-)
    hecaton_code=$?
    [ -z "$hecaton_asked" ] || {
        hecaton_above=" " hecaton_group= hecaton_pid=$$
        while IFS= read -r hecaton_line <"/proc/$hecaton_pid/stat"; do
            set -- ${hecaton_line##*) }
            hecaton_above="$hecaton_above$hecaton_pid " hecaton_group=${hecaton_group:-$3} hecaton_pid=$2
        done
        while goes_on; do
            sleep 0.1 || sleep 1
        done
    }
    exit $hecaton_code
}

IFS= read -r hecaton_first <"$hecaton_file"
case $hecaton_first in
'#!'*)
    hecaton_first=${hecaton_first#??}
    hecaton_first=${hecaton_first#"${hecaton_first%%[! 	]*}"}
    hecaton_interpreter=${hecaton_first%%[ 	]*}
    [ -x "$hecaton_interpreter" ] || fail "the first line of ${hecaton_file##*/} asks for" \\
        "$hecaton_interpreter, which is not in this image"
    [ -x "$hecaton_file" ] || fail "the worker's folder is on a file system that is mounted noexec:" \\
        "ask the worker's admin"
    run "$hecaton_file" "$@"
    ;;
esac
IFS=,
for hecaton_interpreter in $hecaton_interpreters; do
    command -v "$hecaton_interpreter" >/dev/null && run "$hecaton_interpreter" "$hecaton_file" "$@"
done
IFS=' '
fail "none of these is in this image, in PATH=$PATH: $hecaton_interpreters"
"""

_PYTHON_LAUNCHER = """\
import os
import signal
import sys
import time

output, interpreters, file = sys.argv[1:4]
mount = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if output != "-":
    log = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
pipe = os.open(os.path.join(os.path.dirname(mount), "launched"), os.O_RDWR)
os.write(pipe, b"\\n")
os.close(pipe)
nonce = os.environ.pop("HECATON_FILE_NONCE", None)
if nonce:
    os.environ["HECATON_NONCE"] = nonce
with open(file, "rb") as program:
    first = program.readline(256)
if first.startswith(b"#!"):
    command = [file]
elif "python" in interpreters:
    command = [sys.executable, file]
else:
    sys.exit("hecaton: none of these is in this image: " + interpreters)


def run():
    try:
        os.execv(command[0], command + sys.argv[4:])
    except OSError as error:
        sys.stderr.write("hecaton: cannot run {}: {}; it begins with {!r}\\n".format(file, error.strerror, first))
        sys.stderr.flush()
        os._exit(127)


def look(pid):
    try:
        with open("/proc/{}/stat".format(pid), "rb") as file:
            state, parent, group = file.read().rpartition(b")")[2].split()[:3]
    except OSError:
        return b"Z", 0, 0
    return state, int(parent), int(group)


def goes_on():
    above, pid = [], os.getpid()
    while pid:  # an ENTRYPOINT that waits for this waits for nothing else
        above.append(pid)
        pid = look(pid)[1]
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        state, _, group = look(pid)
        if group == os.getpgrp() and state != b"Z" and pid not in above:
            return True
    return False


if not os.environ.pop("HECATON_GROUP_SIGNALS", None):
    run()
asked = []
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
child = os.fork()
if not child:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    run()
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)  # what the file may send to its own group, and live through
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
status = os.waitpid(child, 0)[1]
while asked and goes_on():
    time.sleep(0.05)
os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""


def build(state: Path) -> Path:
    """Make the folder below `state` unless it is there and whole, and return it.

    Nothing is synced: a power cut may leave empty files, and the next start finds them so. Its name holds the version
    and a hash of the content: containers that run keep the one they were started with. Readable for everyone whatever
    the umask, since images run as any user. Raises OSError."""
    files = _files()
    parent = state / "python"
    folder = parent / f"{hecaton.__version__}-{_hash(files)}"
    if _is_whole(folder, files):
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    parent.chmod(0o755)
    unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    try:
        _write(unfinished, files)
        if folder.is_dir() and not _is_whole(folder, files):
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not _is_whole(folder, files):  # else another worker of this host was faster
            raise
    return folder


def _files() -> dict[str, bytes]:
    source = Path(hecaton.__file__).parent / "serverless"
    files = {f"hecaton/serverless/{path.name}": path.read_bytes() for path in sorted(source.glob("*.py"))}
    files["hecaton/__init__.py"] = _SHIM.format(version=hecaton.__version__).encode()
    for launcher, text in ((SHELL_LAUNCHER, _SHELL_LAUNCHER), (PYTHON_LAUNCHER, _PYTHON_LAUNCHER)):
        files[os.path.relpath(launcher, PYTHON_TARGET)] = text.encode()
    return files


def _is_whole(folder: Path, files: dict[str, bytes]) -> bool:
    try:
        return all((folder / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def _hash(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    for directory, _, _ in os.walk(folder):
        os.chmod(directory, 0o755)


__all__ = ["PYTHON_LAUNCHER", "SHELL_LAUNCHER", "build"]
