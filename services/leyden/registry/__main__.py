"""`python -m leyden.registry`."""

from leyden.registry.app import build
from leyden.registry.settings import RegistrySettings
from leyden.service import main

if __name__ == "__main__":
    description = "Registers checkpoints as model versions and decides which version should serve."
    main("registry", build, description, environment=RegistrySettings)
