"""An OpenAI-compatible server on loopback, in a thread: over a tiny model, or with whatever reply a test wants."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


class Stub:
    """`reply`: request body → a Response, or a dict to send as JSON. `bodies` and `headers` keep what came."""

    def __init__(self, reply: Callable[[dict], Any]):
        self.reply, self.bodies, self.headers, self.lock = reply, [], [], threading.Lock()
        self.models = ["tiny"]
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self._chat)
        self.app.get("/v1/models")(lambda: {"object": "list", "data": [{"id": name} for name in self.models]})

    async def _chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        reply = await _in_thread(self.reply, body)
        return reply if isinstance(reply, Response) else JSONResponse(reply)


async def _in_thread(work: Callable, *arguments: Any) -> Any:
    import anyio

    return await anyio.to_thread.run_sync(work, *arguments)


@contextmanager
def serve(stub: Stub) -> Iterator[str]:
    """base_url while the server runs."""
    server = uvicorn.Server(uvicorn.Config(stub.app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(timeout=5)


def completion(
    text: object, top: list[tuple[str, float]] | None = None, finish: str = "stop", message: dict | None = None, **changes: Any
) -> dict[str, Any]:  # fmt: skip
    """A chat completion; top: (token, log-probability) of the likely first tokens. message: further fields of it."""
    said = {"role": "assistant", "content": text} | (message or {})
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "message": said}
    if top is not None:
        alternatives = [{"token": token, "logprob": logprob, "bytes": None} for token, logprob in top]
        choice["logprobs"] = {"content": [{**alternatives[0], "top_logprobs": alternatives}]}
    made = {"id": "x", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice]}
    return {**made, **changes}


class TinyModel:
    """What a server does with a chat request, by plain transformers: the picture from its base64 PNG, one greedy text,
    and, where asked for, the most likely first tokens."""

    def __init__(self, folder: str):
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    def __call__(self, body: dict) -> dict:
        parts = body["messages"][0]["content"]
        content = [self._picture(p) if p["type"] == "image_url" else p for p in parts]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
        start = inputs["input_ids"].shape[1]
        with torch.no_grad():
            ids = self.model.generate(**inputs, max_new_tokens=body["max_tokens"], do_sample=False)[0, start:]
            top = self._top(inputs, body["top_logprobs"]) if body.get("logprobs") else None
        is_whole = bool((ids == self.model.generation_config.eos_token_id).any())
        return completion(self.processor.decode(ids, skip_special_tokens=True), top, "stop" if is_whole else "length")

    def _top(self, inputs: Any, count: int) -> list[tuple[str, float]]:
        logits = self.model(**inputs).logits[0, -1]
        log_probs = logits.log_softmax(-1).topk(min(count, len(logits)))
        return [(self.processor.decode([i]), p) for i, p in zip(log_probs.indices.tolist(), log_probs.values.tolist())]

    def _picture(self, part: dict) -> dict:
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        return {"type": "image", "image": Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")}
