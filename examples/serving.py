"""A detector behind HTTP, by LitServe: batches, limits on sizes, health, and a clear answer to what is no photograph.

    pip install 'ssdlib[serve]'
    python examples/serving.py runs/toy --port 8000
    curl localhost:8000/health
    (printf '{"image": "'; base64 -w0 photo.jpg; printf '"}') |
        curl -s localhost:8000/detect -H 'Content-Type: application/json' -d @-

POST /detect takes {"image": the file in base64, "min_score": 0.3} and gives {"size": [width, height], "objects":
[{"class": name, "score": 0..1, "box": in pixels}]}. 400 is no photograph, 413 too large, 422 another
form, 503 not ready yet, 504 too late.

LitServe has the web server, the queue, the batches and the processes; what is ours is what is below. It listens on this
machine only; for others, put a web server with TLS and accounts before it (--host opens it).
"""

# No `from __future__ import annotations`: LitServe gives the annotation of decode_request to FastAPI as it is.
import argparse
import base64
import binascii
import io
import sys
from typing import Any

from PIL import Image

from ssdlib.deploy import Detector
from ssdlib.deploy.extras import require

try:
    litserve = require("litserve", "serve")
    fastapi, pydantic = require("fastapi", "serve"), require("pydantic", "serve")
except ValueError as error:
    sys.exit(f"error: {error}")

MOST_BYTES, MOST_PIXELS = 16_000_000, 50_000_000  # of a request, and of the image in it, which may be packed tightly


class Photograph(pydantic.BaseModel):
    """What is asked."""

    image: str
    min_score: float = pydantic.Field(0.3, ge=0, le=1)

    @pydantic.field_validator("image")
    @classmethod
    def is_a_photograph(cls, text: str) -> str:
        """Refuse what cannot be read here, at the door: in a batch it would take its neighbours with it."""
        opened(text)
        return text


def opened(text: str) -> Image.Image:
    """The image in base64, decoded; else the answer 400 or 413."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    except binascii.Error as error:
        raise fastapi.HTTPException(400, f"image: is not base64: {error}") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        # The message of Pillow names an object of this process, which is nobody's business.
        reason = "too large" if isinstance(error, Image.DecompressionBombError) else "no image that can be read"
        raise fastapi.HTTPException(400, f"image: is {reason}") from None
    if image.width * image.height > MOST_PIXELS:
        raise fastapi.HTTPException(413, f"image: has {image.width} x {image.height} pixels, over {MOST_PIXELS}")
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's word for a broken PNG
        raise fastapi.HTTPException(400, f"image: is damaged: {error}") from None
    return image


class DetectorAPI(litserve.LitAPI):  # type: ignore[misc,name-defined]
    """The detector, in a process of its own."""

    def __init__(self, run: str, **options: Any) -> None:
        super().__init__(api_path="/detect", **options)
        self.run = run

    def setup(self, device: str) -> None:
        """Open the detector; until then, /health says that it is not ready."""
        self.detector = Detector(self.run, device=device, min_score=0.05)

    def decode_request(self, request: Photograph) -> Photograph:
        """What enters a batch; that it can be read is known already."""
        return request

    def batch(self, inputs: list[Photograph]) -> list[Photograph]:
        """Those that came within the wait."""
        return inputs

    def predict(self, asked: list[Photograph]) -> list[dict[str, Any]]:
        """The answers of a batch."""
        found = self.detector([opened(each.image) for each in asked], batch_size=len(asked))
        return [
            {"size": list(each.size), "objects": [row for row in each.rows() if row["score"] >= one.min_score]}
            for one, each in zip(asked, found, strict=True)
        ]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One by one."""
        return output


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run, a checkpoint, or a name of `ssd models`")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=8, help="most images of a batch, at least 2")
    parser.add_argument("--wait", type=float, default=0.01, help="seconds that the first of a batch waits for others")
    parser.add_argument("--timeout", type=float, default=30, help="seconds after which a request is given up")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    if asked.batch < 2:
        parser.error("--batch must be at least 2")
    api = DetectorAPI(asked.run, max_batch_size=asked.batch, batch_timeout=asked.wait)
    server = litserve.LitServer(
        api,
        accelerator=asked.device,
        timeout=asked.timeout,
        max_payload_size=MOST_BYTES,
        disable_openapi_url=True,  # its page loads scripts from elsewhere
    )
    server.run(host=asked.host, port=asked.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
