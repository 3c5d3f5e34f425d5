"""`python -m leyden.registry`."""

from leyden.registry.app import build
from leyden.service import main

if __name__ == "__main__":
    main("registry", build, "Register checkpoints as versions and say which one shall serve.")
