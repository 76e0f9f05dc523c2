"""Real campaigns: click rates and market prices of the nine that iPinYou published.

Source: Zhang, Yuan, Wang & Shen 2014, Real-time bidding benchmarking with iPinYou dataset, arXiv:1407.7073, and the
lognormal fit to the prices paid. Prices are in the log's own money per thousand impressions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["CAMPAIGNS", "RealCampaign"]


class RealCampaign(NamedTuple):
    click_rate: float
    price: float  # mean paid per thousand impressions
    log_price: float  # mean of the logarithm of the highest rival bid
    spread: float  # its standard deviation

    @property
    def base(self) -> float:
        """Logarithm of the click rate."""
        return math.log(self.click_rate)


CAMPAIGNS = {
    "1458": RealCampaign(0.000796, 68.9, 3.93, 0.84),
    "2259": RealCampaign(0.000335, 93.1, 4.11, 1.04),
    "2261": RealCampaign(0.000301, 89.6, 3.98, 1.19),
    "2821": RealCampaign(0.000637, 89.3, 4.07, 1.04),
    "2997": RealCampaign(0.004436, 63.0, 3.64, 1.09),
    "3358": RealCampaign(0.000780, 92.4, 4.22, 0.88),
    "3386": RealCampaign(0.000729, 76.9, 4.02, 0.87),
    "3427": RealCampaign(0.000743, 81.1, 4.10, 0.85),
    "3476": RealCampaign(0.000521, 79.2, 4.07, 0.86),
}
