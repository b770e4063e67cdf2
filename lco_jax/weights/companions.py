"""The files of a model folder beside its config and its weights."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.json",
    "chat_template.jinja",
)
"""Of the tokenizer and of the template, which belong together."""
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
SPEECH_FILES = ("generation_config.json", "spk_dict.pt")
"""How answers are sampled, and the voices of the talker: no vector depends on them."""
COMPANIONS = (*TOKENIZER_FILES, *PROCESSOR_FILES, *SPEECH_FILES)
"""Files that belong to a model and do not depend on its weights; copied unread."""
