"""The Python surface of the RuvLTRA document: its configurations, its model, its loader, under the names that it has.

Underneath is what `AutoModel` opens. What the document has and this does not have yet, learning while it serves and the
routing of agents, is refused in plain words where it is called. Names with a colon are the document's sections.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from riallm.core.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import torch

    from riallm.engine.auto import Generation, LocalModel
    from riallm.models.llama import LlamaConfig

Quantization = Literal["none", "q4_k_m", "q5_k_m", "q8_0", "mixed"]
KINDS = {"none": "none", "q8_0": "8bit", "q4_k_m": "4bit"}
"""What is made of unpacked weights: GGUF's K-quants are read, not made, so Q4_K_M gives blocks of 32 in 4 bits."""


@dataclass(kw_only=True)
class PagedConfig:
    """Memory Optimization: pages of keys and values."""

    page_size: int = 64
    max_pages_per_sequence: int = 512


@dataclass(kw_only=True)
class SpeculativeConfig:
    """Speculative Decoding. The threshold stops the small model where it is not sure of its own token; it never lets a
    token stand that the model would not have written."""

    lookahead: int = 4
    acceptance_threshold: float = 0.7
    draft_temperature: float = 0.0
    adaptive: bool = True


@dataclass(kw_only=True)
class SonaHooks:
    """SONA Learning Hooks and HNSW Routing; numbers only, until there is learning."""

    hook_layers: tuple[int, ...] = (8, 16, 24)
    quality_threshold: float = 0.6
    hnsw_m: int = 16
    hnsw_ef_construction: int = 200


@dataclass(kw_only=True)
class SonaConfig:
    """Numbers of the learning loops."""

    micro_lora_rank: int = 4
    instant_learning_rate: float = 0.01
    pattern_capacity: int = 50_000
    quality_threshold: float = 0.6


@dataclass(kw_only=True)
class RuvLtraMediumConfig:
    """Architecture Specifications and Model Variants. The shape has the 36 layers and biases of Qwen2.5-3B;
    `as_written` gives the table's 32 without. weights: a folder or GGUF file; None draws them at random."""

    hidden_size: int = 2048
    intermediate_size: int = 11_008
    num_hidden_layers: int = 36
    num_attention_heads: int = 16
    num_kv_heads: int = 2
    head_dim: int = 128
    vocab_size: int = 151_936
    max_position_embeddings: int = 32_768
    rope_theta: float = 1_000_000.0
    attention_bias: bool = True
    variant: Literal["base", "coder", "agent"] = "base"
    quantization: Quantization = "none"
    temperature: float = 0.7
    top_p: float = 0.9
    use_paged_attention: bool = True
    paged_config: PagedConfig = field(default_factory=PagedConfig)
    use_speculative_decoding: bool = False
    speculative_config: SpeculativeConfig = field(default_factory=SpeculativeConfig)
    draft_model_path: str | Path | None = None
    sona_hooks: SonaHooks = field(default_factory=SonaHooks)
    sona_config: SonaConfig = field(default_factory=SonaConfig)
    enable_agent_routing: bool = True
    enable_reasoning_bank: bool = True
    weights: str | Path | None = None

    @staticmethod
    def base() -> RuvLtraMediumConfig:
        """General-purpose."""
        return RuvLtraMediumConfig()

    @staticmethod
    def coder() -> RuvLtraMediumConfig:
        """Code: cooler, one more hook, a stricter threshold."""
        return RuvLtraMediumConfig(
            variant="coder",
            temperature=0.2,
            top_p=0.95,
            sona_hooks=SonaHooks(hook_layers=(8, 16, 24, 28)),
            sona_config=SonaConfig(pattern_capacity=100_000, quality_threshold=0.7),
        )

    @staticmethod
    def agent() -> RuvLtraMediumConfig:
        """Routing and planning: denser index, smaller adapters."""
        return RuvLtraMediumConfig(
            variant="agent",
            temperature=0.3,
            top_p=0.85,
            sona_hooks=SonaHooks(hnsw_m=32, hnsw_ef_construction=400),
            sona_config=SonaConfig(micro_lora_rank=2, instant_learning_rate=0.02),
        )

    def as_written(self) -> RuvLtraMediumConfig:
        """The same with the 32 layers of the document's table, which says nothing of biases."""
        return replace(self, num_hidden_layers=32, attention_bias=False)

    def shape(self) -> LlamaConfig:
        """What the architecture comes to."""
        from riallm.models.llama import LlamaConfig

        return LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=self.max_position_embeddings,
            rms_norm_eps=1e-6,
            rope_theta=self.rope_theta,
            tie_word_embeddings=True,
            attention_bias=self.attention_bias,
        )


@dataclass(frozen=True, kw_only=True)
class GenerateParams:
    """Usage Examples: of one answer. None takes the variant's."""

    max_tokens: int = 256
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()


class RuvLtraMediumModel:
    """A model of the document, in memory."""

    def __init__(self, config: RuvLtraMediumConfig) -> None:
        """Raises UsageError for what cannot be honoured, CheckpointError for weights of another shape."""
        from riallm.engine.auto import AutoModel, LocalModel, ModelOptions
        from riallm.engine.local import EngineOptions
        from riallm.models import resident

        self.config = config
        if config.quantization not in KINDS:
            raise UsageError(
                f"quantization {config.quantization!r} cannot be made here; there are {', '.join(KINDS)}, and a GGUF "
                "file keeps what it has"
            )
        if config.paged_config.page_size != 64 or not config.use_paged_attention:
            raise UsageError("keys and values lie in pages of 64 tokens, always; leave paged_config as it is")
        speculative = config.speculative_config
        if speculative.draft_temperature != 0.0 or speculative.acceptance_threshold != 0.7 or not speculative.adaptive:
            raise UsageError("the small model is greedy, adaptive, and stops below 0.7; leave these as they are")
        if config.use_speculative_decoding and config.draft_model_path is None:
            raise UsageError("use_speculative_decoding needs draft_model_path, the small model that drafts")
        ahead = EngineOptions(lookahead=speculative.lookahead if config.use_speculative_decoding else 0)
        options = ModelOptions(compression=KINDS[config.quantization])  # type: ignore[arg-type]
        if config.weights is not None:
            draft = config.draft_model_path if config.use_speculative_decoding else None
            opened = AutoModel.from_pretrained(config.weights, options, engine_options=ahead, draft=draft)
            if opened.model.sizes != config.shape():
                raise CheckpointError(
                    f"{config.weights} is not of the configuration's shape: it has {opened.model.sizes}, "
                    f"the configuration says {config.shape()}"
                )
        else:
            if config.use_speculative_decoding:
                raise UsageError("made-up weights draft nothing; name `weights`, or leave speculative decoding off")
            warnings.warn("no `weights` were named: they are drawn at random, and answers mean nothing", stacklevel=2)
            found = resident.random_of(config.shape(), "ruvltra", kind=None)
            opened = LocalModel("ruvltra", found, options, engine_options=ahead)
        self._model: LocalModel = opened

    def forward(self, input_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """(T * V,): the logits of all positions, one behind the other. Positions count up from 0."""
        if list(positions) != list(range(len(input_ids))):
            raise UsageError(f"positions count from 0 to {len(input_ids) - 1}, one for each token; got {positions}")
        return self._model.logits(input_ids).flatten()

    def generate(self, prompt: str | Sequence[int], params: GenerateParams | None = None) -> Generation:
        """Go on with a text; what `params` leaves open the variant says."""
        params = params or GenerateParams()
        return self._model.generate(
            prompt,
            max_new_tokens=params.max_tokens,
            temperature=self.config.temperature if params.temperature is None else params.temperature,
            top_p=self.config.top_p if params.top_p is None else params.top_p,
            seed=params.seed,
            stop=params.stop,
        )

    def enable_sona_with_hooks(self, layers: Sequence[int]) -> NoReturn:
        """Refused: see `not_yet`."""
        not_yet("SONA's hooks")

    def sona(self) -> NoReturn:
        """Refused: see `not_yet`."""
        not_yet("SONA")

    def close(self) -> None:
        """Free what the model holds."""
        self._model.close()


class GGUFLoader:
    """Model Loading: From GGUF."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def load_ruvltra_medium(self, config: RuvLtraMediumConfig | None = None) -> RuvLtraMediumModel:
        """The model of the file. Raises CheckpointError when it is not of the configuration's shape."""
        return RuvLtraMediumModel(replace(config or RuvLtraMediumConfig.base(), weights=self.path))


class AgentRouter:
    """Integration with Claude Flow: Agent Routing."""

    def __init__(self, sona: object) -> None:
        not_yet("the routing of agents")


class Trajectory:
    """Integration with Claude Flow: Trajectory Recording."""

    def __init__(self, name: str) -> None:
        not_yet("the recording of trajectories")


def not_yet(what: str) -> NoReturn:
    """Raises UsageError: learning while serving is not there."""
    raise UsageError(f"{what}: this model does not learn while it serves, yet; everything else works without it")
