"""Analyse texts: the local model, an LLM, and the chain of both."""

from bulletproof.analysis.analyzer import Analysis, Analyzer, BatchAnalysis, Sentiment, Usage
from bulletproof.analysis.local import LocalAnalyzer

__all__ = ["Analysis", "Analyzer", "BatchAnalysis", "LocalAnalyzer", "Sentiment", "Usage"]
