"""Which proxy a connection goes through, and which go past it."""

from __future__ import annotations

import os

import pytest

from hecaton.core.errors import BadRequest
from hecaton.wire.reach.proxies import proxy_for


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variable", "url", "used"),
    [
        ("HTTP_PROXY", "http://gpu.lab:8181", True),
        ("http_proxy", "http://gpu.lab", True),
        ("HTTP_PROXY", "https://gpu.lab", False),
        ("HTTPS_PROXY", "https://gpu.lab", True),
        ("https_proxy", "https://10.1.2.3:8181", True),
        ("HTTPS_PROXY", "http://gpu.lab", False),
        ("ALL_PROXY", "http://gpu.lab", True),
        ("all_proxy", "https://gpu.lab", True),
        ("ALL_PROXY", "http://localhost:8181", False),
        ("HTTP_PROXY", "http://127.0.0.1:8181", False),
        ("HTTPS_PROXY", "https://[::1]:8181", False),
    ],
)
def test_the_scheme_says_which_variable_counts_and_this_machine_needs_none(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str, used: bool
) -> None:
    monkeypatch.setenv(variable, "http://proxy.lab:3128")
    proxy = proxy_for(url)
    assert (proxy is not None) is used
    if proxy is not None:
        assert (proxy.url, proxy.variable, proxy.headers) == ("http://proxy.lab:3128", variable, {})


@pytest.mark.parametrize(
    ("excepted", "url", "direct"),
    [
        ("gpu.lab", "http://gpu.lab:8181", True),
        ("GPU.lab", "http://gpu.lab", True),
        ("lab", "http://gpu.lab", True),
        (".lab", "http://gpu.lab", True),
        ("*.lab", "http://gpu.lab", True),
        ("ab", "http://gpu.lab", False),
        ("other, gpu.lab", "http://gpu.lab", True),
        ("gpu.lab:8181", "http://gpu.lab:8181", True),
        ("gpu.lab:8181", "http://gpu.lab:80", False),
        ("*", "http://gpu.lab", True),
        ("10.0.0.0/8", "http://10.1.2.3:8181", True),
        ("10.0.0.0/8", "http://11.1.2.3:8181", False),
        ("10.1.2.3", "http://10.1.2.3", True),
        ("fd00::/8", "http://[fd00::5]:8181", True),
        ("[fd00::5]:8181", "http://[fd00::5]:8181", True),
        ("no/such", "http://10.1.2.3", False),
        ("", "http://gpu.lab", False),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_what_no_proxy_names_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, name: str, excepted: str, url: str, direct: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy.lab:3128")
    monkeypatch.setenv(name, excepted)
    assert (proxy_for(url) is None) is direct


def test_a_login_goes_along_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://ada:p%40ss@proxy.lab")
    proxy = proxy_for("http://gpu.lab")
    assert proxy is not None
    assert proxy.headers == {"Proxy-Authorization": "Basic YWRhOnBAc3M="}
    assert str(proxy) == "the proxy http://proxy.lab:80 (HTTP_PROXY)"


@pytest.mark.parametrize("value", ["socks5://u:secret@proxy.lab:1080", "https://proxy.lab", "http://", "http://h:port"])
def test_a_variable_that_names_no_http_proxy_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    with pytest.raises(BadRequest, match="HTTP_PROXY=") as refused:
        proxy_for("http://gpu.lab")
    assert "secret" not in str(refused.value)
    assert "NO_PROXY" in str(refused.value)
