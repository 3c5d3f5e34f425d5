"""`python -m leyden.policy`: run the policy agent."""

from leyden.policy.app import build
from leyden.policy.settings import AgentSettings, PolicySection
from leyden.service import main

if __name__ == "__main__":
    description = "Puts promoted model versions live in the engine beside it."
    main("policy", build, description, environment=AgentSettings, section=("policy", PolicySection))
