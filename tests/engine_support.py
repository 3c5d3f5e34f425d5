"""For tests of the engines: a tiny random model, what it says in a direct forward pass, and an engine process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from leyden.stack.ports import free_port
from roots import python_path

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if tools %}TOOLS {{ tools | length }}\n{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_model(folder: Path, seed: int) -> Path:
    """A random two-layer Llama over bytes; wide weights, so that two seeds disagree clearly."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer() -> Any:
    """256 bytes and two chat tokens; no merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_model_that_says(folder: Path, answers: Sequence[tuple[str, str]]) -> Path:
    """The tiny model, having learnt by heart what to answer to each question, where tools are offered."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer, model = byte_tokenizer(), AutoModelForCausalLM.from_pretrained(save_tiny_model(folder, seed=0))
    rows = []
    for question, answer in answers:
        asked = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(asked, tools=[{}], add_generation_prompt=True, tokenize=False)
        prompt, said = tokenizer.encode(text), [*tokenizer.encode(answer), tokenizer.eos_token_id]
        rows.append((torch.tensor([prompt + said]), torch.tensor([[-100] * len(prompt) + said])))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model only waits for a second one
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(400):
        loss = max(model(input_ids=ids, labels=labels).loss for ids, labels in rows)
        if loss.item() < 0.003:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    assert loss.item() < 0.003
    model.save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, seed: int) -> Path:
    """A random LoRA adapter of rank 4 on the model in `base`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    targets = ["q_proj", "v_proj", "down_proj"]
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules=targets))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


class Direct:
    """The model in a folder, run without any engine."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        self._model: Any = AutoModelForCausalLM.from_pretrained(folder)
        if adapter:
            self._model = PeftModel.from_pretrained(self._model, adapter)
        self._model.eval()

    def logprobs(self, prompt: list[int], tokens: list[int], temperature: float = 1.0) -> list[float]:
        """Logprobs of `tokens` after `prompt`, sampled at `temperature`; greedy (0) as at 1."""
        import torch

        with torch.inference_mode():
            logits = self._model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        return (logits / (temperature or 1.0)).log_softmax(-1)[range(len(tokens)), tokens].tolist()


@dataclass
class Said:
    """What an engine answered, reduced to what tests compare."""

    version: str
    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]
    text: str = ""
    finish: str | None = None

    @classmethod
    def of(cls, response: httpx.Response, choice: int = 0) -> "Said":
        assert response.status_code == 200, response.text
        body = response.json()
        chosen = body["choices"][choice]
        logprobs = [entry["logprob"] for entry in chosen["logprobs"]["content"]]
        version = response.headers["x-leyden-policy-version"]
        text, finish = chosen["message"]["content"], chosen["finish_reason"]
        return cls(version, body["prompt_token_ids"], chosen["token_ids"], logprobs, text, finish)

    def error_against(self, direct: Direct, temperature: float = 1.0) -> float:
        """Largest difference of a logprob to the direct model's."""
        wanted = direct.logprobs(self.prompt, self.tokens, temperature)
        assert len(wanted) == len(self.logprobs) > 0
        return max(abs(a - b) for a, b in zip(wanted, self.logprobs, strict=True))


@dataclass
class EngineProcess:
    """One engine, started as a user starts it."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    folders: dict[str, Path] = field(default_factory=dict)
    """Version name → the folder that was put live under it."""

    @classmethod
    def start(
        cls, kind: str, model: Path, log: Path, *options: str, port: int = 0, wait_s: float = 240
    ) -> "EngineProcess":
        port = port or free_port()
        command = [sys.executable, "-m", "leyden.policy.engines", "--engine", kind, "--model", str(model)]
        command += ["--policy", "tiny", "--port", str(port), "--dtype", "float32", "--max-model-len", "256", *options]
        environment = os.environ | {"PYTHONPATH": python_path(), "LEYDEN_ENGINE_DRAIN_S": "20"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        engine = cls(process, f"http://127.0.0.1:{port}", log, {"tiny@0": model})
        try:
            engine.wait_healthy(wait_s)
        except BaseException:
            engine.stop()
            raise
        return engine

    def wait_healthy(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise TimeoutError(self.log.read_text()[-3000:])

    def cpu_share(self, seconds: float) -> float:
        """How much of a core it and its children use, measured over `seconds`."""
        before = self._cpu_s()
        time.sleep(seconds)
        return (self._cpu_s() - before) / seconds

    def _cpu_s(self) -> float:
        leader = psutil.Process(self.process.pid)
        times = [one.cpu_times() for one in (leader, *leader.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def stop(self) -> None:
        """End the engine and whatever it started."""
        for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue

    def chat(self, content: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=chat_body(content, **options), timeout=60)

    def version(self) -> dict[str, str]:
        return httpx.get(f"{self.url}/leyden/v1/weights", timeout=10).json()

    def swap(self, folder: Path) -> str:
        """Put `folder` live under the next version number."""
        name = f"tiny@{len(self.folders)}"
        response = httpx.post(f"{self.url}/leyden/v1/weights", json=swap_body(name, folder), timeout=60)
        assert response.status_code == 200, response.text
        self.folders[name] = folder
        return name


def chat_body(content: str, **options: Any) -> dict[str, Any]:
    asked = {"model": "tiny", "max_tokens": 12, "temperature": 0, "logprobs": True, "return_token_ids": True}
    return asked | {"messages": [{"role": "user", "content": content}]} | options


def swap_body(version: str, folder: Path) -> dict[str, str]:
    return {"version": version, "path": str(folder)}
