"""Talk to an LLM: any OpenAI-compatible server, with typed errors."""

from bulletproof.llm.check import check_connection
from bulletproof.llm.client import LLMCall, LLMClient, Message, Protection
from bulletproof.llm.direct import call_openai_api
from bulletproof.llm.listener import ErrorListener, tell, tell_success
from bulletproof.llm.pricing import PRICES, Price, Spending
from bulletproof.llm.replies import Completion
from bulletproof.llm.wrap import wrap

__all__ = [
    "PRICES",
    "Completion",
    "ErrorListener",
    "LLMCall",
    "LLMClient",
    "Message",
    "Price",
    "Protection",
    "Spending",
    "call_openai_api",
    "check_connection",
    "tell",
    "tell_success",
    "wrap",
]
