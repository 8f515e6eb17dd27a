"""`hecaton up` on a machine with a real systemd: server and worker as services, and machines that join."""

from __future__ import annotations

import re

import pytest

from tests.e2e.test_server_service import sh
from tests.engine.systemd import systemd_container

pytestmark = pytest.mark.sample(1)


def test_a_machine_is_up_after_one_command_and_again_with_fresh_lines(engine: str) -> None:
    with systemd_container() as machine:
        said = sh(machine, "hecaton up --ip 127.0.0.1")
        assert "Hecaton is in /opt/hecaton." in said
        assert "password, shown only this once" in said
        assert "admin" in sh(machine, "HOME=/root hecaton user list"), "who has typed it is logged in"
        assert "hecaton run train.py" not in said, "there is no worker"
        assert "no Docker engine answers here. Install it: curl" in said
        assert "/opt/hecaton/bin/python" in sh(machine, "cat /etc/systemd/system/hecaton-server.service")
        assert sh(machine, "/usr/local/bin/hecaton --version").startswith("hecaton ")
        (line,) = re.findall(r"^  hecaton join (\S+)$", said, re.MULTILINE)
        assert "Joined 127.0.0.1" in sh(machine, f"/usr/local/bin/hecaton join {line}")
        assert "admin" in sh(machine, "/usr/local/bin/hecaton user list")

        before = sh(machine, "systemctl show hecaton-server --property=MainPID")
        again = sh(machine, "/usr/local/bin/hecaton up --ip 127.0.0.1")
        assert "The service hecaton-server runs already." in again
        assert "password" not in again
        assert sh(machine, "systemctl show hecaton-server --property=MainPID") == before, "nothing was restarted"
        refused = sh(machine, "! hecaton up --port 9000")
        assert (
            "with port 8181\nFor its lines: hecaton up. To replace it (the data stays): sudo hecaton-server" in refused
        )
        sh(machine, "echo 'hecaton 1.9.9, Python 3.11, 0' > /opt/hecaton/installation")  # as an upgrade leaves it
        newer = sh(machine, "HECATON_ADMIN_PASS=another-one /usr/local/bin/hecaton up --ip 127.0.0.1")
        assert "/opt/hecaton is brought up to date: 1.9.9 before, " in newer
        assert "The service hecaton-server is started again, with what is there now." in newer
        assert "HECATON_ADMIN_PASS is not used: there is an admin already, with another password." in newer
        sh(machine, "systemctl stop hecaton-server")
        assert "The service hecaton-server is started again." in sh(machine, "hecaton up --ip 127.0.0.1")
        (worker,) = re.findall(r"install (\S+)$", again, re.MULTILINE)
        handler = "echo 'from hecaton.serverless import start; start(print)' > /h.py"
        install = f"hecaton-gpu install {worker} --runtime process --handler demo:1=/h.py"
        assert "is connected" in sh(machine, f"{handler} && /usr/local/bin/{install}")
        assert "The service hecaton-gpu runs already." in sh(machine, "hecaton up --ip 127.0.0.1")
        sh(machine, "sed -i s/127.0.0.1:8181/elsewhere:8181/ /etc/systemd/system/hecaton-gpu.service")
        assert "works for https://elsewhere:8181, not for this server" in sh(machine, "hecaton up --ip 127.0.0.1")
        sh(machine, "systemctl stop hecaton-server && mv /var/lib/hecaton/server/tls/key.pem /tmp")
        sh(machine, "install -m 600 /etc/hostname /var/lib/hecaton/server/tls/key.pem")
        broken = sh(machine, "! hecaton up --ip 127.0.0.1")
        assert "the service hecaton-server does not stay up. It says" in broken
        assert "key.pem for TLS" in broken
