"""Analyse texts: the local model, an LLM, and the chain of both."""

from bulletproof.analysis.analyzer import Analysis, Analyzer, BatchAnalysis, Sentiment, Usage
from bulletproof.analysis.chain import AnalyzerChain
from bulletproof.analysis.classifier import TextClassifier
from bulletproof.analysis.llm import LLMAnalyzer
from bulletproof.analysis.local import LocalAnalyzer
from bulletproof.analysis.model_folder import ModelFolder
from bulletproof.analysis.pooled import PooledAnalyzer

__all__ = [
    "Analysis",
    "Analyzer",
    "AnalyzerChain",
    "BatchAnalysis",
    "LLMAnalyzer",
    "LocalAnalyzer",
    "ModelFolder",
    "PooledAnalyzer",
    "Sentiment",
    "TextClassifier",
    "Usage",
]
