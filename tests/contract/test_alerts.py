"""Prometheus rules: each names metrics that our services export, or that another rule records."""

import re

import yaml

from roots import ROOT, SOURCE_ROOTS

RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]  # fmt: skip
SUFFIX = re.compile(r"_(total|sum|count|bucket)$")


def exported() -> set[str]:
    """Names of metrics in the source of services and of what they share."""
    modules = [path for folder in SOURCE_ROOTS for path in folder.rglob("metrics.py")]
    return {name for path in modules for name in re.findall(r'"(leyden_[a-z_]+)"', path.read_text())}


def test_rules_name_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    known = exported()
    for rule in RULES:
        for name in re.findall(r"leyden:[a-z0-9_:]+", rule["expr"]):
            assert name in recorded, f"{name} is recorded by no rule"
        for name in re.findall(r"leyden_[a-z_]+", rule["expr"]):
            assert SUFFIX.sub("", name) in known or name in known, f"{name} is exported by nobody"


def test_every_alert_says_how_urgent_it_is_and_what_it_means() -> None:
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["summary"]


def test_there_is_an_alert_on_reward_hacking() -> None:
    (rule,) = [rule for rule in RULES if rule.get("alert") == "LeydenRewardHacking"]
    assert "leyden:outcome_per_rollout" in rule["expr"]


def test_the_runbook_has_a_section_for_each_alert_and_for_no_other() -> None:
    sections = re.split(r"^## ", (ROOT / "docs/runbook.md").read_text(), flags=re.MULTILINE)[1:]
    assert [section.split("\n")[0] for section in sections] == [rule["alert"] for rule in RULES if "alert" in rule]
    for section in sections:
        assert all(f"**{part}.**" in section for part in ("Means", "Look at", "Do")), section


def test_the_runbook_names_metrics_that_exist() -> None:
    named = re.findall(r"`(leyden_[a-z_]+)", (ROOT / "docs/runbook.md").read_text())
    assert named
    assert {SUFFIX.sub("", name) for name in named} <= exported()
