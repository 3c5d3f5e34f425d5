"""Others' servers, each a program of an environment of its own: LiteLLM, Agent Lightning, the OpenTelemetry Collector.

They run as their own documentation starts them. None of them is imported.
"""

import json

from benchmarks.servers import KEY, Bench, Target, post
from leyden.kafka.settings import KafkaSettings
from leyden.stack.ports import free_port
from leyden.stack.probes import HttpProbe, TcpProbe

COLLECTOR_TOPIC = "otlp_spans"


def litellm(bench: Bench, program: str, engine: str) -> Target:
    """LiteLLM's proxy, with its own command line and no database."""
    served = {"model": "openai/policy", "api_base": engine, "api_key": KEY}
    config = {
        "model_list": [{"model_name": "policy", "litellm_params": served}],
        "general_settings": {"master_key": KEY},
    }
    path = bench.folder / "litellm.json"
    path.write_text(json.dumps(config))
    port = free_port()
    alive = HttpProbe(f"http://127.0.0.1:{port}/health/liveliness")
    command = [program, "--config", str(path), "--port", str(port), "--host", "127.0.0.1"]
    # Its price list comes from the network otherwise, and its start waits for that.
    process = bench.start(command, alive, LITELLM_LOCAL_MODEL_COST_MAP="True")
    return Target("LiteLLM", (f"http://127.0.0.1:{port}/v1/chat/completions",), (process,))


def agent_lightning(bench: Bench, program: str, engine: str) -> Target:
    """Agent Lightning 1.x's server (`agl-server`): calls of a rollout, recorded in its memory. It does not stream."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [program, "host=127.0.0.1", f"port={port}", f"key={KEY}", "default_proxy.model_name=policy"]
    process = bench.start([*command, f"hydra.run.dir={bench.folder}"], HttpProbe(f"{url}/healthz"))
    post(f"{url}/api/models", [{"model": "policy", "endpoint": engine}])
    post(f"{url}/api/rollouts", [{"input": "nothing", "rollout_id": "benchmark"}])
    proxied = f"{url}/proxy/rollout/benchmark/attempt/0/mode/train/openai/v1/chat/completions"
    return Target("Agent Lightning 1", (proxied,), (process,), streams=False)


def lightning_store(bench: Bench, program: str) -> tuple[Target, dict[str, str], str]:
    """Agent Lightning 0.3's store (`agl store`), in memory; what its spans' resource must say; its statistics' URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [program, "store", "--host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
    process = bench.start(command, HttpProbe(f"{url}/v1/agl/health"))
    begun = post(f"{url}/v1/agl/rollouts", {"input": "nothing"})
    told = {
        "agentlightning.rollout_id": begun["rollout_id"],
        "agentlightning.attempt_id": begun["attempt"]["attempt_id"],
    }
    return Target("Agent Lightning 0.3", (f"{url}/v1/traces",), (process,)), told, f"{url}/v1/agl/statistics"


def collector(bench: Bench, program: str, kafka: KafkaSettings) -> Target:
    """The Collector, with nothing between receiver and exporter, acknowledging as we do: when all replicas have it."""
    port = free_port()
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {
            "kafka": {
                "brokers": [kafka.bootstrap_servers],
                "traces": {"topic": COLLECTOR_TOPIC},
                "producer": {"required_acks": -1, "max_message_bytes": 8_000_000},
                "sending_queue": {"enabled": False},
                "retry_on_failure": {"enabled": False},
            }
        },
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["kafka"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    path = bench.folder / "collector.json"
    path.write_text(json.dumps(config))
    process = bench.start([program, f"--config={path}"], TcpProbe(port))
    return Target("OpenTelemetry Collector", (f"http://127.0.0.1:{port}/v1/traces",), (process,))
