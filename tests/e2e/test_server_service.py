"""`hecaton-server` as a service of a real systemd: installed, restarted with other options, removed; the data stays."""

from __future__ import annotations

from tests.engine.systemd import SystemdContainer, systemd_container

HEALTH = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/healthz').read().decode())"


def sh(machine: SystemdContainer, line: str) -> str:
    return machine.run("sh", "-c", f"{{ {line}; }} 2>&1")


def is_healthy(machine: SystemdContainer, port: int) -> bool:
    probe = f'for i in $(seq 100); do python -c "{HEALTH.format(port=port)}" 2>/dev/null && break; sleep 0.1; done'
    return '"status":"ok"' in sh(machine, probe)


def test_the_server_is_a_service_that_comes_back_and_keeps_its_data(engine: str) -> None:
    with systemd_container() as machine:
        said = sh(machine, "hecaton-server --port 8181 install")
        assert "Installed and started the service hecaton-server" in said
        assert "password, shown only this once" in said
        probe = HEALTH.format(port=8181)
        assert '"status":"ok"' in machine.run("python", "-c", probe), "it is there when the next line is typed"
        assert "password" not in sh(machine, "cat /etc/systemd/system/hecaton-server.service")

        sh(machine, "systemctl kill -s KILL hecaton-server")
        assert is_healthy(machine, 8181), "systemd starts it again"

        sh(
            machine,
            "(python -m http.server 8383 >/dev/null 2>&1 &) ; until python -c "
            "'import socket; socket.create_connection((\"127.0.0.1\", 8383))'; do sleep 0.1; done 2>/dev/null",
        )
        taken = sh(machine, "! hecaton-server --port 8383 install")
        assert "another program listens on 0.0.0.0 port 8383 already" in taken

        again = sh(machine, "hecaton-server --port 8282 install")
        assert "password" not in again, "the admin is there already"
        assert is_healthy(machine, 8282)

        assert "The data stays" in sh(machine, "hecaton-server uninstall")
        assert "hecaton.db" in sh(machine, "ls /var/lib/hecaton/server")
        assert "hecaton-server" not in sh(machine, "ls /etc/systemd/system")
