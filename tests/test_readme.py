"""The README still says all that was promised before there was a program, and the first minutes that tests walk."""

from __future__ import annotations

import re
from pathlib import Path

from tests.release.walk import IMAGE, LINES, STEPS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

SECTIONS = """\
# Hecaton
## Installation
## Quick Start
### 1. Server Setup
### 2. Client Setup
### 3. Worker Setup
### 4. Job Submission
### 5. Programmatic Job Submission
### 6. Writing a Payload and Custom Docker Image
## Command Reference
### Client CLI (`hecaton`)
### GPU Worker CLI (`hecaton-gpu`)
"""

TYPED = """\
pip install hecaton
HECATON_ADMIN_PASS=mysecurepassword hecaton-server --port 8181
hecaton-server --port 8181
hecaton-server --port 8181 --ssl-keyfile key.pem --ssl-certfile cert.pem
hecaton server new --ip <server_ip>:8181 --name my-server
hecaton server login my-server --username admin --password mysecurepassword
sudo pip install hecaton
sudo hecaton-gpu install <server_ip>:8181
hecaton job new <path_to_payload_file> <docker_image_name>
FROM python:3.9-slim
RUN pip install hecaton
COPY handler.py /app/handler.py
CMD ["python", "/app/handler.py"]
from hecaton.client.managers.api import HecatonServer
job_id = HecatonServer.new_job(
    ip=server_ip, secret=token, \n\
    file_path="payload.json", image="my-custom-image:latest"
    job_info = HecatonServer.get_job(server_ip, token, job_id)
    if job_info[1] in ("FINISHED", "FAILED"):
from hecaton.serverless import start, ServerLessInput
def my_handler(data: ServerLessInput):
    job_payload = data.input
    return result
    start(my_handler)
"""


def test_its_promised_sections_are_there_in_their_order() -> None:
    headings = re.findall(r"^#+ .+$", README, re.MULTILINE)
    assert [line for line in headings if line in SECTIONS.splitlines()] == SECTIONS.splitlines()


def test_its_promised_lines_are_there_to_the_letter() -> None:
    assert set(TYPED.splitlines()) - set(README.splitlines()) == set()


def test_the_two_commands_of_a_checkout_and_the_drawing_stand_before_the_first_section() -> None:
    before = README[: README.index("## Installation")]
    for said in ("\nmake demo ", "\nmake test ", " hecaton-server ", " hecaton-gpu, "):
        assert said in before


def test_the_first_minutes_that_are_walked_are_those_of_its_quick_start() -> None:
    section = README[README.index("## Quick Start") : README.index("### 1. ")].splitlines()
    quick = [line.partition(" #")[0].rstrip() for line in section]
    for line in (*LINES, *STEPS):
        typed = re.sub(r"HECATON_HOME=\S+ |~/.local/bin/", "", line)  # laptop and PATH of the machine of the tests
        typed = typed.replace("SUDO", "sudo").replace("WHEEL", "hecaton")
        typed = re.sub(r"HECATON_USERNAME=\S+ HECATON_PASSWORD=\S+ ", "", typed)  # it asks for them
        typed = typed.replace(f"-i {IMAGE} ", "")  # there is no default image on the engine of the tests
        typed = re.sub(r"(http://)?localhost", "<server_ip>", typed)
        assert typed in quick
