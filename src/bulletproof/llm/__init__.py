"""Talk to an LLM: any OpenAI-compatible server, with typed errors."""

from bulletproof.llm.check import check_connection
from bulletproof.llm.client import LLMClient, Message, Protection
from bulletproof.llm.direct import call_openai_api
from bulletproof.llm.pricing import PRICES, Price, Spending
from bulletproof.llm.replies import Completion

__all__ = [
    "PRICES",
    "Completion",
    "LLMClient",
    "Message",
    "Price",
    "Protection",
    "Spending",
    "call_openai_api",
    "check_connection",
]
