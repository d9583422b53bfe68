"""TRL's GRPO with attach: no critic, accumulation, the same weights. `make test-adapters`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from esper_exporter import Exporter
from support.pages import value

MISSING = importlib.util.find_spec("trl") is None
pytestmark = pytest.mark.skipif(MISSING, reason="not run: pip install trl")


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: place for place, word in enumerate(["<pad>", "<eos>", "<unk>", *"abcdefghij"])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def train(prepare: Callable[[Any], object], folder: Path) -> Any:
    """The model after three steps; ``prepare`` gets the trainer first."""
    from datasets import Dataset
    from transformers import GPT2Config, GPT2LMHeadModel
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(1)
    words = tokenizer()
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=13, n_positions=32, n_embd=16, n_layer=1, n_head=2,
            bos_token_id=1, eos_token_id=1, pad_token_id=0,
        )
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(text.count("a")) for text in completions],
        args=GRPOConfig(
            output_dir=str(folder), max_steps=3, per_device_train_batch_size=4, num_generations=4,
            gradient_accumulation_steps=2, max_completion_length=8, use_cpu=True, report_to=[],
            learning_rate=1e-2, logging_steps=1, save_strategy="no", seed=1, bf16=False,
            num_iterations=2,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a b c", "d e f", "g h i", "j a b"] * 8}),
        processing_class=words,
    )  # fmt: skip
    prepare(trainer)
    trainer.train()
    return model


def test_grpo_is_measured_without_a_critic(tmp_path: Path) -> None:
    exporter = Exporter(port=0, state_dir="off", linger=0, run_id="x", watch_process=False)
    from esper_exporter.adapters.trl import attach

    plain = train(lambda _: None, tmp_path)
    watched = train(lambda trainer: attach(trainer, exporter), tmp_path)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)
    page = exporter.render().decode()
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    assert value(page, "esper_tamiyo_updates_total") == 3
    assert value(page, "esper_tamiyo_policy_loss") is not None
    assert value(page, "esper_tamiyo_value_loss") is None
    assert value(page, "esper_tamiyo_grad_norm_pre_clip") > 0
    assert value(page, "esper_tamiyo_advantage_std") is not None
    assert 0 < value(page, "esper_tamiyo_head_entropy_ratio", head="token") <= 1
    assert value(page, "esper_tamiyo_kl_divergence_nats") is not None
