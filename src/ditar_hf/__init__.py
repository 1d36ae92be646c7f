"""DiTAR: diffusion transformer autoregressive modelling of speech, at home in the Hugging Face libraries."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForTextToWaveform,
    AutoProcessor,
    AutoTokenizer,
)

from .modeling.configuration_ditar import DiTARConfig, DiTARTransformerConfig
from .modeling.configuration_ditar_vae import DiTARVAEConfig
from .modeling.feature_extraction_ditar import DiTARFeatureExtractor
from .modeling.generation_config_ditar import DiTARGenerationConfig
from .modeling.modeling_ditar import DiTARForTextToSpeech, DiTARModel, DiTARPreTrainedModel
from .modeling.modeling_ditar_vae import DiTARVAE
from .modeling.processing_ditar import DiTARProcessor
from .modeling.scheduling_ditar import DiTARScheduler
from .modeling.tokenization_ditar import DiTARTokenizer
from .modeling.voices_ditar import DiTARVoice
from .pipelines.pipeline_ditar import DiTARTextToSpeechPipeline

__version__ = "0.1.0"

AutoConfig.register("ditar", DiTARConfig)
AutoConfig.register("ditar_vae", DiTARVAEConfig)
AutoModel.register(DiTARConfig, DiTARModel)
AutoModel.register(DiTARVAEConfig, DiTARVAE)
AutoModelForTextToWaveform.register(DiTARConfig, DiTARForTextToSpeech)
AutoTokenizer.register(DiTARConfig, slow_tokenizer_class=DiTARTokenizer)
AutoFeatureExtractor.register(DiTARConfig, DiTARFeatureExtractor)
AutoProcessor.register(DiTARConfig, DiTARProcessor)

__all__ = [
    "DiTARConfig",
    "DiTARFeatureExtractor",
    "DiTARForTextToSpeech",
    "DiTARGenerationConfig",
    "DiTARModel",
    "DiTARPreTrainedModel",
    "DiTARProcessor",
    "DiTARScheduler",
    "DiTARTextToSpeechPipeline",
    "DiTARTokenizer",
    "DiTARTransformerConfig",
    "DiTARVAE",
    "DiTARVAEConfig",
    "DiTARVoice",
]
