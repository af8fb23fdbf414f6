"""Attention that passes NaN on, as every other operation of torch does."""

from __future__ import annotations

import math
from typing import Any, Final

_NAME: Final = "sdpa"


def pass_nan_on() -> None:
    """Let the attention of transformers' models answer NaN for queries or keys that hold it.

    Without a mask torch's own on a CPU takes a short row of nothing but NaN for one that is masked, and answers zeros:
    a damaged weight would give other answers and no error. Only what runs in inference mode is changed.
    """
    from transformers.modeling_utils import AttentionInterface

    functions = AttentionInterface()
    attend = functions[_NAME]
    if getattr(attend, "passes_nan_on", False):
        return

    def attend_and_pass_on(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        import torch

        answer, weights = attend(module, query, key, value, attention_mask, *args, **kwargs)
        if attention_mask is None and torch.is_inference_mode_enabled():
            # On a CPU one look is cheaper; a GPU would have to be waited for.
            if query.device.type == "cpu" and math.isfinite(query.sum() + key.sum()):
                return answer, weights
            # Sums in float32, because those of finite halves may be infinite.
            rows = query.sum((1, 3), dtype=torch.float32) * 0 + key.sum((1, 2, 3), dtype=torch.float32)[:, None] * 0
            answer = answer + rows.to(answer.dtype)[..., None, None]
        return answer, weights

    attend_and_pass_on.passes_nan_on = True  # type: ignore[attr-defined]
    AttentionInterface.register(_NAME, attend_and_pass_on)
