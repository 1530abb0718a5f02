"""Break things on purpose, by a plan: calls that fail, hang or answer rubbish, and a network that does the same."""

from bulletproof.chaos.injection import Chaos
from bulletproof.chaos.plan import Plan, Rule
from bulletproof.chaos.proxy import TcpProxy

__all__ = ["Chaos", "Plan", "Rule", "TcpProxy"]
