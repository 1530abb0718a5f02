"""Load models safely, keep versions of them, and have them predict."""

from bulletproof.models.catalog import ModelInfo, VersionInfo
from bulletproof.models.checksums import sha256_of
from bulletproof.models.inspection import ModelFacts, inspect_model
from bulletproof.models.loaded import LoadedModels
from bulletproof.models.loading import load_ai_model, open_predictor, register_loader
from bulletproof.models.manifest import Feature, InputSchema, Limits, Manifest, OutputSchema
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.requests import PredictionRequest, PredictionResponse
from bulletproof.models.rollout import Candidate, Rollout
from bulletproof.models.runners import open_runner
from bulletproof.models.server import ModelServer, Prediction
from bulletproof.models.sources import fetch_model
from bulletproof.models.verify import Verification

__all__ = [
    "Candidate",
    "Feature",
    "InputSchema",
    "Limits",
    "LoadedModels",
    "Manifest",
    "ModelFacts",
    "ModelInfo",
    "ModelRegistry",
    "ModelServer",
    "OutputSchema",
    "Prediction",
    "PredictionRequest",
    "PredictionResponse",
    "Rollout",
    "Verification",
    "VersionInfo",
    "fetch_model",
    "inspect_model",
    "load_ai_model",
    "open_predictor",
    "open_runner",
    "register_loader",
    "sha256_of",
]
