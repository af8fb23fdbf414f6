"""The proxy of classifiers: the probabilities of labels for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence

from engine.operations.classify import Classification, Classify, Inputs, ZeroShot
from engine.proxies.proxy import Proxy


class ClassifyProxy(Proxy):
    """The probabilities of labels.

    Without `truncate` an input that is longer than the model reads is InvalidInput and not cut. In each method
    `keep_alive` seconds take the place of the idle timeout from now on: 0 unloads afterwards, negative
    stays. No inputs load nothing. Each raises InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's own labels, in its order; asking loads the encoder."""
        labels: tuple[str, ...] = self._fact("labels")
        return labels

    @property
    def max_tokens(self) -> int | None:
        """Tokens read of a text, or of a pair together, the rest is cut off; asking loads the encoder."""
        limit: int | None = self._fact("max_tokens")
        return limit

    def classify(self, inputs: Inputs, *, truncate: bool = True, keep_alive: float | None = None) -> Classification:
        """Return the probabilities of the model's own labels, float32 (n, labels), for texts or for pairs of texts."""
        return self._run(Classify(inputs, truncate), keep_alive)

    def zero_shot(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        *,
        template: str = "This example is {}.",
        multi_label: bool = False,
        truncate: bool = True,
        keep_alive: float | None = None,
    ) -> Classification:
        """Return the probabilities of any `labels`, float32 (n, labels), by a model for natural language inference.

        A label takes the place of the braces in `template`. With `multi_label` each is judged by itself; else those of
        one text add up to 1.
        """
        return self._run(ZeroShot(texts, labels, template, multi_label, truncate), keep_alive)
