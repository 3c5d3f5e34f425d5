"""`python -m leyden.registry`."""

from leyden.registry.app import build
from leyden.registry.settings import RegistrySettings
from leyden.service import main

if __name__ == "__main__":
    description = "Register checkpoints as versions and say which one shall serve."
    main("registry", build, description, environment=RegistrySettings)
