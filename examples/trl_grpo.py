"""TRL's GRPO, attached: `pip install '.[trl]'` from the checkout. A tiny model learns to write "a".

usage: trl_grpo.py [STEPS]
"""

from __future__ import annotations

import sys
import tempfile

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from esper_exporter.adapters.trl import attach

WORDS = ["<pad>", "<eos>", "<unk>", *"abcdefghij"]


def tokenizer() -> PreTrainedTokenizerFast:
    """A token a letter."""
    places = {word: place for place, word in enumerate(WORDS)}
    letters = Tokenizer(models.WordLevel(places, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def main(steps: int = 20) -> str:
    """Train; the page as it was at the end."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(WORDS), n_positions=32, n_embd=16, n_layer=1, n_head=2,
            bos_token_id=1, eos_token_id=1, pad_token_id=0,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [float(text.count("a")) for text in completions],
            args=GRPOConfig(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=4,
                num_generations=4, max_completion_length=8, use_cpu=True, bf16=False,
                report_to=[], save_strategy="no", learning_rate=1e-2,
            ),
            train_dataset=Dataset.from_dict({"prompt": ["a b c", "d e f"] * 16}),
            processing_class=tokenizer(),
        )  # fmt: skip
        exporter = attach(trainer, run_id="letters")
        trainer.train()
    return exporter.render().decode()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
