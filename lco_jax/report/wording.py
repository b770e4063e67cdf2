"""What reports and tables call settings."""

from lco_jax.config import Full, Lora, Towers, Trainable
from lco_jax.config.model import LORA_TARGETS


def trainable_in_words(trainable: Trainable) -> str:
    """What of a model trains."""
    match trainable:
        case Lora():
            words = f"LoRA, rank {trainable.rank}, alpha {trainable.alpha:g}"
            if trainable.targets != LORA_TARGETS:
                words += f" on {', '.join(trainable.targets)}"
            return words
        case Full():
            return "all weights of the decoder"
        case Towers():
            rates = {
                "vision tower": trainable.vision,
                "audio tower": trainable.audio,
                "projectors": trainable.projectors,
            }
            parts = [
                name if rate == 1 else f"{name} (learning rate x {rate:g})"
                for name, rate in rates.items()
                if rate
            ]
            if trainable.decoder is None:
                return f"{_listed(parts)}; the decoder is frozen"
            decoder = trainable_in_words(trainable.decoder)
            if isinstance(trainable.decoder, Lora):
                decoder = f"the decoder by {decoder}"
            return _listed([*parts, decoder])


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
