"""The local test API of the RunPod SDK. It has no queue: a job runs inside the request that asks for its status."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import requests
import runpod

from benchmarks import services
from benchmarks.contest import folder
from benchmarks.services import Service


def handler(job: dict[str, dict[str, int]]) -> int:
    return job["input"]["value"]


def serve() -> None:
    runpod.serverless.start({"handler": handler})


class System:
    def __init__(self) -> None:
        self._api: Service | None = None

    def start(self) -> None:
        port = services.free_port()
        code = f"from {__name__} import serve; serve()"
        options = ["--rp_serve_api", "--rp_api_port", str(port), "--rp_api_host", "127.0.0.1"]
        self._api = Service([sys.executable, "-c", code, *options], folder() / "api.log")
        self._api.wait_for_port(port)
        self._url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()

    def call(self, value: int) -> object:
        return self._post("/runsync", {"input": {"value": value}})["output"]

    def flood(self, count: int) -> float:
        start = time.perf_counter()
        jobs = [self._post("/run", {"input": {"value": number}})["id"] for number in range(count)]
        submitting = time.perf_counter() - start
        for number, job in enumerate(jobs):
            if self._post(f"/status/{job}", {})["output"] != number:
                raise RuntimeError(f"job {job} gave another result")
        return submitting

    def _post(self, path: str, body: object) -> dict[str, object]:
        answer = self._session.post(self._url + path, json=body, timeout=60)
        answer.raise_for_status()
        found: dict[str, object] = answer.json()
        return found

    def processes(self) -> Mapping[str, list[int]]:
        return {"local api": [self._api.pid] if self._api else []}

    def stop(self) -> None:
        if self._api:
            self._api.stop()
