"""Who has typed `hecaton up`: is logged in on this machine by it, and goes on with `hecaton run`."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import msgspec

from hecaton.cli import output, units
from hecaton.cli.hecaton.machine.site import OwnServer
from hecaton.client import Client
from hecaton.core.model import KeyScope
from hecaton.wire.home import ENVIRONMENT

assert sys.platform != "win32"  # `up` has said so before this is imported

PROFILES_IN = "HECATON_PROFILES_IN"
"""His HECATON_HOME, which sudo does not pass on; where it is not set, it is as his account has it by itself."""


class Person(msgspec.Struct, frozen=True):
    """`account`: as whom his commands run; None: as this process does. `environment`: theirs."""

    name: str
    account: pwd.struct_passwd | None
    environment: dict[str, str]


def who_typed() -> Person:
    """Whoever has become root for this one command, by sudo; else the account of this process, be it that of a root
    shell."""
    profiles_in = os.environ.get(PROFILES_IN)
    number = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not number.isdecimal() or not (profiles_in or _parent_is_sudo()):
        return Person(_name_of(os.geteuid()), None, dict(os.environ))
    account = pwd.getpwuid(int(number))
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HECATON_", "XDG_", "SUDO_"))}
    own |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    return Person(account.pw_name, account, own | ({ENVIRONMENT: profiles_in} if profiles_in else {}))


def log_in(person: Person, site: OwnServer, client: Client, *, has_worker: bool) -> None:
    """With his own rights: what is written lies in his home. What goes wrong is a warning, for the rest stands.
    `has_worker`: one that runs jobs, which are the next thing to try then."""
    line = str(site.local_line(client, KeyScope.LOGIN))
    command = units.python_command("hecaton.cli.hecaton.main", "join", "-")
    if person.account is None:
        done = subprocess.run(command, input=line, env=person.environment, capture_output=True, text=True)
    else:
        name, group = person.account.pw_name, person.account.pw_gid
        done = subprocess.run(
            command, input=line, env=person.environment, capture_output=True, text=True, cwd="/",
            user=person.account.pw_uid, group=group, extra_groups=os.getgrouplist(name, group),
        )  # fmt: skip
    if done.returncode == 0:
        following = " Next: hecaton run train.py" if has_worker else ""
        output.say(f"  login    {person.name} on this machine, as admin.{following}")
    else:
        output.warn(f"{person.name} is not logged in on this machine: {done.stderr.strip()}")


def _parent_is_sudo() -> bool:
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text().strip() == "sudo"
    except OSError:
        return False


def _name_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
