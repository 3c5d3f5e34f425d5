"""The fake store keeps the store's laws, so that what is tested with it holds."""

import pytest

from service.gateway.gateway_store_fake import MemoryStore
from service.gateway.rollout_store_laws import RolloutStoreLaws


class TestMemoryStore(RolloutStoreLaws):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def bare_store(self) -> MemoryStore:
        return MemoryStore(whole=False)
