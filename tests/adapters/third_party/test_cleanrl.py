"""CleanRL's own scripts with the lines of docs/INTEGRATION.md put in, and nothing else changed.

Run where CLEANRL_SRC is a checkout of CleanRL and this Python has what it pins (gymnasium 0.29,
tyro, tensorboard, for Atari ale-py): `make test-adapters` prints them in its table then.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.third_party.field_table import judge
from adapters.third_party.reference import Recorder, expected
from support.pages import value

SRC = os.environ.get("CLEANRL_SRC")
pytestmark = pytest.mark.skipif(not SRC, reason="not run: CLEANRL_SRC names no checkout of CleanRL")
DOCS = Path(__file__).parents[3] / "docs" / "INTEGRATION.md"

NORMALISED = dict.fromkeys(
    ("advantage_mean", "advantage_std"), "normalised in each minibatch, which is not handed over"
)
CONTINUOUS = {
    "head_entropy_ratio": "a continuous head has no largest entropy",
    "action_diversity": "continuous actions hardly repeat",
    "dominant_action_ratio": "continuous actions hardly repeat",
}
SMALL = ("--no-cuda", "--num-envs", "4")
SCRIPTS: dict[str, tuple[str, ...]] = {
    "ppo": (*SMALL, "--total-timesteps", "1536"),
    "ppo_continuous_action": (
        *(*SMALL, "--total-timesteps", "768", "--num-steps", "64", "--num-minibatches", "8"),
        *("--update-epochs", "3", "--env-id", "Pendulum-v1"),
    ),
    "ppo_atari": (*SMALL, "--total-timesteps", "192", "--num-steps", "16"),
}
RECORDER = {
    "optimizer = ": "recorder.module = agent",
    "b_values = ": "recorder.rollout(b_values, b_returns, b_advantages, b_actions)",
    "entropy_loss = ": (
        "recorder.minibatch(newlogprob, b_logprobs[mb_inds], entropy, pg_loss, v_loss)"
    ),
    "y_pred, y_true = ": "recorder.end()",
}


class Seen(Recorder):
    """The second opinion, in CleanRL's words."""

    module: Any

    def __init__(self, discrete: bool) -> None:
        super().__init__()
        self._discrete = discrete

    def rollout(self, values: Any, returns: Any, raw: Any, actions: Any) -> None:
        now = self.begin(self.module)
        told = {"values": values, "returns": returns, "raw_advantages": raw}
        now.rollout = {name: tensor.double().numpy().copy() for name, tensor in told.items()}
        now.actions = {"action": actions.double().numpy().copy()} if self._discrete else {}

    def minibatch(self, new: Any, old: Any, entropy: Any, policy: Any, value_loss: Any) -> None:
        now = self.now
        assert now is not None
        for kind, rows in (("new", new), ("old", old), ("entropy", entropy)):
            kept = getattr(now, kind).setdefault("action", [])
            kept.append(rows.detach().double().numpy().copy())
        for name, loss in (("policy_loss", policy), ("value_loss", value_loss)):
            now.losses.setdefault(name, []).append(loss.item())


def documented() -> dict[str, str]:
    """The lines of the documentation by the line of the script that they follow."""
    text = DOCS.read_text()
    blocks = re.findall(r"After `([^`]+)…`:\n\n```py\n(.*?)```", text, re.DOTALL)
    assert [begin for begin, _ in blocks] == [*RECORDER, "envs.close()"]
    return dict(blocks)


def with_lines(script: str, lines: dict[str, str]) -> str:
    """The script with lines put in, each as deep as the one line that begins like its anchor."""
    for anchor, added in lines.items():
        places = [*re.finditer(rf"^( *){re.escape(anchor)}.*\n", script, re.MULTILINE)]
        assert len(places) == 1, anchor
        deeper = "".join(f"{places[0][1]}{line}\n" for line in added.splitlines())
        script = script[: places[0].end()] + deeper + script[places[0].end() :]
    return script


def run(name: str, lines: dict[str, str], folder: Path, **more: Any) -> dict[str, Any]:
    """What the script left, run as a program."""
    assert SRC is not None
    script = (Path(SRC) / "cleanrl" / f"{name}.py").read_text()
    folder.mkdir()
    copy = folder / f"{name}.py"
    copy.write_text(with_lines(script, lines))
    before, here = sys.argv, Path.cwd()
    sys.argv = [str(copy), *SCRIPTS[name]]
    sys.path.insert(0, SRC)
    os.chdir(folder)  # it writes its TensorBoard log there
    try:
        return runpy.run_path(str(copy), more, run_name="__main__")
    finally:
        os.chdir(here)
        sys.path.remove(SRC)
        sys.argv = before


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_field_is_right_and_the_weights_are_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, said in (("PORT", "0"), ("LINGER", "0"), ("STATE_DIR", "off")):
        monkeypatch.setenv(f"ESPER_EXPORTER_{setting}", said)
    if name == "ppo_atari":
        pytest.importorskip("ale_py", reason="not run: pip install 'ale-py<0.10'")
    discrete = name != "ppo_continuous_action"
    recorder = Seen(discrete)
    with recorder.watching():
        plain = run(name, RECORDER, tmp_path / "plain", recorder=recorder)
    lines = documented()
    # The weight change and the share of zeros are else those of every tenth update; a norm of a
    # million values in float32 has five digits.
    first = next(iter(lines))
    lines[first] = lines[first].replace(
        "optimizer=optimizer,", "optimizer=optimizer, every=1, exact_norms=True,"
    )
    measured = run(name, lines, tmp_path / "measured")
    for one, other in zip(plain["agent"].parameters(), measured["agent"].parameters(), strict=True):
        assert torch.equal(one, other)
    page = measured["exporter"].render().decode()
    assert value(page, "esper_exporter_internal_errors_total", where="probe") == 0
    assert value(page, "esper_tamiyo_updates_total") == plain["args"].num_iterations == 3
    choices = int(plain["envs"].single_action_space.n) if discrete else None
    wanted = expected(recorder.last, plain["args"].clip_coef, {"action": choices})
    judge(f"CleanRL's {name}.py", page, wanted, NORMALISED | ({} if discrete else CONTINUOUS))
    mine = value(page, "esper_tamiyo_explained_variance")
    assert mine == pytest.approx(float(measured["explained_var"]), rel=1e-4)
