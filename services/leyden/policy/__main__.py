"""`python -m leyden.policy`: run the policy agent."""

from leyden.policy.app import build
from leyden.service import main

if __name__ == "__main__":
    main("policy", build, "Puts promoted model versions live in the engine beside it.")
