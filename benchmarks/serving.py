"""`examples/serving.py` under load: requests at a stated rate over loopback; is an answer lost, or mixed up?

    python benchmarks/serving.py --rates 5 10 20 --seconds 10

Requests come at their times whether or not the answers before have come, as users do, and a latency counts from the
time at which a request was due. Each answer is compared with what the detector finds in that photograph. It writes
serving.json:

    detector, batch, wait       what is served, the most images of a batch, seconds that a batch waits for others
    load                        load average of the machine before and after
    rows                        one for each rate:
        rate, seconds           requests a second, and for how long
        sent, right, wrong, failed
                                requests; answers with the objects of their photograph; with others; and none, or no 200
        per_second              right answers a second, until the last had come
        median_ms, p99_ms, max_ms   from the time at which the request was due to its answer
    refused                     what comes of bad input: {"no base64": [status, message], ...}; the server goes on
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import RESULTS, ROOT, circumstances, write_record

from ssdlib.data import sample_root
from ssdlib.deploy import Detector
from ssdlib.zoo import demo_model
from ssdlib.zoo.checkpoint import save_model

PATIENCE = 180  # seconds until a server is ready: it imports PyTorch in two processes


def ask(port: int, body: bytes, path: str = "/detect", timeout: float = 60) -> tuple[int, Any]:
    """Status and answer of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST" if body else "GET", path, body or None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text
    finally:
        connection.close()


@contextmanager
def served(run: str | Path, *options: str) -> Iterator[int]:
    """A server in a process of its own, ready; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "examples" / "serving.py"), str(run), "--port", str(port), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    if ask(port, b"", "/health")[0] == 200:
                        break
                except OSError:
                    pass
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise RuntimeError(f"the server did not start: {log.read().decode()[-2000:]}")
                time.sleep(0.2)
            yield port
        finally:
            os.killpg(server.pid, 15)  # with the processes that it began
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, 9)
                server.wait()


def question(image: bytes, **more: Any) -> bytes:
    return json.dumps({"image": base64.b64encode(image).decode(), **more}).encode()


def press(port: int, questions: Sequence[bytes], answers: Sequence[Any], rate: float, seconds: float) -> dict[str, Any]:
    """Send at the rate; what came back."""
    count = round(rate * seconds)
    outcomes: list[tuple[str, float]] = []
    began = time.perf_counter() + 0.5

    def send(index: int) -> None:
        due = began + index / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        which = index % len(questions)
        try:
            status, answer = ask(port, questions[which])
            outcome = "failed" if status != 200 else "right" if same(answer, answers[which]) else "wrong"
        except OSError:
            outcome = "failed"
        outcomes.append((outcome, time.perf_counter() - due))

    threads = [threading.Thread(target=send, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = time.perf_counter() - began
    kinds = [kind for kind, _ in outcomes]
    median, high, most = np.percentile([1e3 * wait for _, wait in outcomes], [50, 99, 100])
    return {
        "rate": rate,
        "seconds": seconds,
        "sent": count,
        **{kind: kinds.count(kind) for kind in ("right", "wrong", "failed")},
        "per_second": round(kinds.count("right") / total, 2),
        "median_ms": round(median, 1),
        "p99_ms": round(high, 1),
        "max_ms": round(most, 1),
    }


def same(one: Any, other: Any) -> bool:
    """The same objects, but for the last digit: in another batch, sums are added in another order."""
    if one["size"] != other["size"] or len(one["objects"]) != len(other["objects"]):
        return False
    pairs = list(zip(one["objects"], other["objects"], strict=True))
    return all(
        a["class"] == b["class"]
        and abs(a["score"] - b["score"]) < 2e-3
        and np.abs(np.subtract(a["box"], b["box"])).max() < 0.5
        for a, b in pairs
    )


def bad_questions(photograph: bytes) -> dict[str, bytes]:
    wide = io.BytesIO()
    Image.new("1", (20_000, 3_000)).save(wide, "PNG")  # 60 megapixels in some kilobytes
    return {
        "no base64": b'{"image": "no photograph!"}',
        "no image": question(b"a text"),
        "cut off": question(photograph[: len(photograph) // 2]),
        "too many pixels": question(wide.getvalue()),
        "too large": question(photograph + bytes(16_000_000)),
        "no JSON": b"photo.jpg",
        "no image given": b"{}",
        "score over 1": question(photograph, min_score=2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--wait", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    photographs = [path.read_bytes() for path in sorted((sample_root() / "JPEGImages").glob("*.jpg"))[:8]]
    model = demo_model()
    found = Detector(model, min_score=0.3)([Image.open(io.BytesIO(each)) for each in photographs])
    answers = [{"size": list(each.size), "objects": each.rows()} for each in found]
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save_model(model, Path(folder) / "model.safetensors")
        with served(checkpoint, "--batch", str(asked.batch), "--wait", str(asked.wait), "--device", "cpu") as port:
            questions = [question(each) for each in photographs]
            press(port, questions, answers, 4, 1)  # the first calls are slow
            rows = []
            for rate in asked.rates:
                rows.append(press(port, questions, answers, rate, asked.seconds))
                print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
            refused = {}
            for name, body in bad_questions(photographs[0]).items():
                status, answer = ask(port, body)
                detail = answer.get("detail") if isinstance(answer, dict) else answer
                said = detail if isinstance(detail, str) else "; ".join(f"{d['loc'][-1]}: {d['msg']}" for d in detail)
                refused[name] = [status, said]
                print(f"{name}: {status} {said}")
            status, answer = ask(port, questions[0])
            assert status == 200, "the server does not go on after bad input"
            assert same(answer, answers[0])
    rates = " ".join(f"{rate:g}" for rate in asked.rates)
    record = {"command": f"python benchmarks/serving.py --rates {rates} --seconds {asked.seconds:g}", **circumstances()}
    record |= {"detector": "ssd_tiny", "batch": asked.batch, "wait": asked.wait}
    load = [round(before, 2), round(os.getloadavg()[0], 2)]
    write_record({**record, "load": load, "rows": rows, "refused": refused}, "serving", asked.out)


if __name__ == "__main__":
    main()
