"""The rates of the tests keep the laws that Redis' do."""

import pytest

from service.gateway.gateway_rates_fake import MemoryRates, RateLaws


class TestMemoryRates(RateLaws):
    @pytest.fixture
    def rates(self) -> MemoryRates:
        return MemoryRates()
