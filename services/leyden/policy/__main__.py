"""`python -m leyden.policy`: runs the policy agent."""

from leyden.policy.app import build
from leyden.policy.settings import AgentSettings, PolicySection
from leyden.service import main

if __name__ == "__main__":
    description = "Loads promoted model versions into its engine."
    main("policy", build, description, environment=AgentSettings, section=("policy", PolicySection))
