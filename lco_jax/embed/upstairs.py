"""What an embedder hands itself to, exports and mteb, and what reads its media as texts.

These live in rooms above this one (export, evaluate, lab). They are imported by name and when they
are asked for, so that nothing here leans on them.
"""

import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lco_jax.config import MediaConfig
from lco_jax.embed.arguments import import_torch, refuse
from lco_jax.embed.encoder import MakeReader
from lco_jax.embed.precision import quantize

_SAVE = {
    "train_datasets": "exports name the data of their run",
    "model_name": "the card is named after the folder; push_to_hub knows the name on the hub",
}


class Upstairs:
    """Mixed into `Embedder`, which has the model and `encode`."""

    _model: str
    _step: int | None
    _dtype: str
    _base_folder: Path
    _is_fetched_otherwise: bool
    _own_settings: set[str]
    prompts: dict[str, str]
    truncate_dim: int | None

    def save_pretrained(
        self,
        path: str | Path,
        *,
        create_model_card: bool = True,
        safe_serialization: bool = True,
        verified: bool = True,
        **others: Any,
    ) -> None:
        """Write the model as a folder of sentence-transformers, which is loaded again in torch and
        compared (`launch/export.py --format sentence-transformers`).

        The model is read a second time for it, so both are in memory for a while.

        Raises:
            ValueError: the folder exists, torch is missing, or this embedder has settings that the
                folder would not keep.
        """
        refuse(self.save_pretrained, others, _SAVE)
        if not (create_model_card and safe_serialization):
            raise ValueError(
                "save_pretrained writes safetensors and a model card; leave both options out"
            )
        settings = {"truncate_dim": self.truncate_dim, "prompts": any(self.prompts.values())}
        if lost := sorted(self._own_settings | {name for name, x in settings.items() if x}):
            raise ValueError(
                f"the folder would not keep {', '.join(lost)} of this embedder, and "
                "give other vectors; open the model without, or set them in sentence-transformers"
            )
        _upstairs("export.folders").export_model(
            # The model that was opened, however the hub was asked for it.
            str(self._base_folder) if self._is_fetched_otherwise else self._model,
            path,
            "sentence-transformers",
            checkpoint=self._step,
            dtype=self._dtype,
            verified=verified,
        )

    save = save_pretrained

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool | None = None,
        commit_message: str | None = None,
        exist_ok: bool = False,
        revision: str | None = None,
        create_pr: bool = False,
        local_model_path: str | Path | None = None,
        verified: bool = True,
    ) -> str:
        """Save the model (see `save_pretrained`) and upload the folder; returns the address of the
        commit, or of the pull request.

        Args:
            local_model_path: an export that is uploaded as it is.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as parent:
            folder = local_model_path or Path(parent) / "model"
            if local_model_path is None:
                self.save_pretrained(folder, verified=verified)
            repo = api.create_repo(repo_id, private=private, exist_ok=exist_ok or create_pr)
            if revision is not None:
                api.create_branch(repo.repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo.repo_id,
                folder_path=folder,
                commit_message=commit_message or "Add an embedding model of lco_jax",
                revision=revision,
                create_pr=create_pr,
            )
        return commit.pr_url if create_pr else commit.commit_url

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb files results under: `mteb.evaluate(embedder, tasks)` takes an embedder."""
        return self._in_mteb().mteb_model_meta

    def _encode_for_mteb(self, inputs: Any, precision: str, options: dict[str, Any]) -> Any:
        """What mteb's EncoderProtocol promises, of a data loader."""
        vectors = np.asarray(self._in_mteb().encode(inputs, **options))
        return import_torch().from_numpy(quantize(vectors, precision))

    def _make_reader(self, media: MediaConfig) -> MakeReader | None:
        """What reads media in place of the towers, where settings of the model ask for it."""
        if "tokens" not in (media.audio_features, media.image_features):
            return None
        return _upstairs("lab.media_texts").make_reader

    def _in_mteb(self) -> Any:
        return _upstairs("evaluate.mteb_adapter").MtebEncoder(self)


def _upstairs(module: str) -> ModuleType:
    """A module of a room above."""
    return importlib.import_module(f"lco_jax.{module}")
