"""Rerankers through sentence-transformers: models that read query and document together and score the pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.base.text_adapter import TextAdapter
from engine.adapters.kinds.in_one_type import read_in_one_type
from engine.adapters.kinds.labels import Labels, check_label_ids
from engine.adapters.text.library_reader import readers_of
from engine.adapters.text.reader import tell_padding
from engine.adapters.text.rows import Features, Limit
from engine.errors import InvalidInput, Unavailable
from engine.operations.inputs import ITEMS
from engine.operations.probability import sigmoid
from engine.operations.rerank import Scores

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from engine.adapters.text.library_reader import LibraryReader

_RELEVANT: Final = frozenset(
    ("relevant", "positive", "pos", "entailment", "yes", "true", "match", "duplicate", "paraphrase", "equivalent", "1")
)


class RerankAdapter(TextAdapter):
    """A `CrossEncoder` whose head has one logit, or two labels of which one means relevant."""

    packages = ("torch", "transformers", "sentence_transformers")

    def _import_library(self) -> str:
        import sentence_transformers

        return f"sentence-transformers {sentence_transformers.__version__}, {super()._import_library()}"

    def _construct(self, folder: Path) -> Any:
        from sentence_transformers import CrossEncoder

        check_label_ids(folder, self._config.model)
        module = read_in_one_type(CrossEncoder, folder, trust_remote_code=self._config.trust_remote_code)
        # For a score by tokens, or a head behind a pooling, the body's configuration names labels of no head.
        count = module.num_labels
        named = count == len(module.config.id2label)
        module.labels = self._labels(Labels.of(module.config, self._assume) if named else Labels.unnamed(count))
        if module.transformers_model is not None:
            tell_padding(module.transformers_model, module.tokenizer)
        # In the module, so that `unload` drops it with everything else.
        module.readers = readers_of(module, folder, self._config.max_tokens)
        return module.eval()

    def _metadata(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, **({"regression": True} if self._module.labels.regression else {})}

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of query and document together; the longer one is cut."""
        return self._reader.limit

    @property
    def _reader(self) -> LibraryReader:
        [reader] = self._module.readers.values()
        found: LibraryReader = reader
        return found

    def score(self, query: str, documents: Sequence[str], *, truncate: bool = True) -> Scores:
        """Return the relevance of each document to the query.

        The score is the sigmoid of a single logit, or the softmax of two labels, also if the model's configuration
        names another activation (the ms-marco models: Identity): a score is a probability, and `raw` holds the values
        that those models themselves give. Of a regression (`problem_type`) the score is the number itself.
        """
        import numpy as np

        module, reader = self._module, self._reader
        limit = Limit(self._config.name, reader.limit_for(), truncate, reader.vocabulary)
        pairs = [(query, document) for document in documents]
        if not truncate:
            self._check_query(query, limit)
        rows = reader.rows(pairs, limit, prompt=module.prompts.get(module.default_prompt_name))

        def forward(features: Features) -> torch.Tensor:
            scores: torch.Tensor = module(features)["scores"]
            return scores

        def finish(logits: torch.Tensor, *_: Any) -> list[np.float32]:
            return list(self._log_odds(logits.float().cpu().numpy()))

        raw = np.asarray(self._compute(rows, reader.company, forward, finish), dtype=np.float32)
        scores = raw.copy() if module.labels.regression else sigmoid(raw)
        return Scores(scores, raw, rows.tokens, rows.cut)

    def _check_query(self, query: str, limit: Limit) -> None:
        """Raise InvalidInput where no document, however short, could make up for the query's length."""
        try:
            self._reader.rows([(query, "")], limit)
        except InvalidInput as error:
            raise InvalidInput(
                error.message.replace(f"{ITEMS}[0]", "query"), param="query", next_step=error.next_step
            ) from error

    def _log_odds(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        if logits.shape[1] == 1:
            return logits[:, 0]
        labels: Labels = self._module.labels
        yes = _relevant(labels.names)
        yes = 1 if yes is None else yes
        odds: NDArray[np.float32] = logits[:, yes] - (0 if labels.independent else logits[:, 1 - yes])
        return odds

    def _labels(self, labels: Labels) -> Labels:
        """The labels, with a note for the user on what they leave open."""
        if labels.regression and len(labels.names) > 1:
            raise Unavailable(
                f"{self._config.model} is a regression of {len(labels.names)} numbers; a reranker has one.",
                next_step='Set kind = "classify" for it, or set `model` to a reranker.',
            )
        if labels.regression:
            self._assume(
                "It is a regression by its problem_type: its scores are its own numbers and no probabilities, and a "
                "threshold is compared with these."
            )
        elif len(labels.names) == 2 and _relevant(labels.names) is None:
            self._assume(f"Its labels are {' and '.join(labels.names)}: the second is taken to mean relevant.")
        return labels


def _relevant(names: Sequence[str]) -> int | None:
    """The position of the one label whose name means relevant; None where there is no such one."""
    named = [index for index, name in enumerate(names) if name.lower() in _RELEVANT]
    return named[0] if len(named) == 1 else None
