"""The examples of the README as files: what stands there is what runs here."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def block(language: str, containing: str) -> str:
    """The one code block in this language that contains the text."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    (wanted,) = (code for code in found if containing in code)
    return str(wanted)


def handler() -> str:
    return block("python", "def my_handler(data: ServerLessInput)")


def dockerfile() -> str:
    return block("dockerfile", "FROM python:3.9-slim")


def polling_client(address: str, token: str, image: str) -> str:
    """Section 5, with its three place-holders filled in."""
    code = block("python", "from hecaton.client.managers.api import HecatonServer")
    for placeholder, value in (
        ("http://localhost:8181", address),
        ("YOUR_JWT_TOKEN", token),
        ("my-custom-image:latest", image),
    ):
        assert code.count(placeholder) == 1, placeholder
        code = code.replace(placeholder, value)
    return code
